// The scalar row's GEMV by additions and subtractions: i2 by masked sums, the others by table
// look-up.
//
// No multiply instruction: pointers are stepped, never computed by a product. Included inside the
// anonymous namespace of the row.
#pragma once

constexpr int kI2Bytes = 64, kT3Bytes = 160;
constexpr int kI2Cols = 256, kT3Cols = 24;

// ---- sums by table look-up (t3, t5, b1) ----

// A table t holds, for v = 0..(w-1)/2, the sum that the trits of v select from the columns so far,
// least significant trit last in K. extend() adds the next more significant trit, of weight w: t[w
// + u] = a + t[u], t[w - u] = a - t[u].
template <int w>
BITINFER_INLINE void extend(int32_t* t, int32_t a) {
  for (int u = 0; u <= (w - 1) / 2; ++u) {
    t[w + u] = a + t[u];
    t[w - u] = a - t[u];
  }
}

// t[0..13] and, for a set sign bit, t[16 + v] = -t[v]. Entries 14, 15 stay 0.
BITINFER_INLINE void build_t3(const int8_t* a, int32_t* t) {
  extend<1>(t, a[2]);
  extend<3>(t, a[1]);
  extend<9>(t, a[0]);
  for (int v = 0; v < 16; ++v) t[16 + v] = -t[v];
}

// t[0..121] and t[128 + v] = -t[v], so that a packed byte is the index.
BITINFER_INLINE void build_t5(const int8_t* a, int32_t* t) {
  extend<1>(t, a[4]);
  extend<3>(t, a[3]);
  extend<9>(t, a[2]);
  extend<27>(t, a[1]);
  extend<81>(t, a[0]);
  for (int v = 0; v < 128; ++v) t[128 + v] = -t[v];
}

// t[byte] = the sum of 8 activations, those whose bit is 0 subtracted.
BITINFER_INLINE void build_b1(const int8_t* a, int32_t* t) {
  int32_t all = 0;
  for (int i = 0; i < 8; ++i) all += a[i];
  t[0] = -all;
  for (int i = 0; i < 8; ++i) {
    for (int u = 0; u < 1 << i; ++u) t[(1 << i) + u] = t[u] + a[i] + a[i];
  }
}

// ---- masked sums (i2) ----

// 16 bytes that the compiler keeps in a register where the baseline has one. Comparisons give masks
// of 0 or -1; scalar code that selects by a bit would be turned into a multiplication.
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef int16_t Words __attribute__((vector_size(16)));

BITINFER_INLINE Bytes splat(int value) {
  Bytes bytes;
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<int8_t>(value);
  return bytes;
}

BITINFER_INLINE Bytes load_bytes(const void* from) {
  Bytes bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return bytes;
}

// Sums of bytes in 16 lanes, the even and the odd ones as words. Exact up to 255 additions.
struct MaskedSum {
  Words even;
  Words odd;

  BITINFER_INLINE void add(Bytes x) {
    const Words words = reinterpret_cast<Words>(x);
    even += (words << 8) >> 8;
    odd += words >> 8;
  }
  BITINFER_INLINE int32_t total() const {
    int32_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += even[i] + odd[i];
    return sum;
  }
};

// ---- the kernels ----

// A code is c = bit0 + 2 bit1 = w + 1, so acc = (sum of a where bit0) + 2 (sum of a where bit1) -
// sum(a): masked sums.
BITINFER_INLINE void gemv_addsub_i2(const TileStreams& streams, int64_t num_blocks,
                                    const Activation& a) {
  constexpr int kWidenBlocks =
      15;  // a block adds 16 activations to a lane of MaskedSum, which holds 255
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams && num_blocks >= 1);
  TileStreams at = streams;  // stepped along: the next K-block and the sums of the current tile
  for (int64_t t = 0; t < streams.tiles_per_stream; ++t) {
    for (int s = 0; s < streams.num_streams; ++s) {
      const uint8_t* block = at.tiles[s];
      const int8_t* codes = a.codes;
      int32_t once = 0;
      int32_t twice = 0;
      for (int64_t left = num_blocks; left > 0; left -= kWidenBlocks) {
        MaskedSum bit0{};
        MaskedSum bit1{};
        for (int64_t b = left < kWidenBlocks ? left : kWidenBlocks; b > 0;
             --b, block += kI2Bytes, codes += kI2Cols) {
          for (int p = 0; p < 64; p += 16) {
            const Bytes bits = load_bytes(block + p);
            for (int g = 0; g < 4; ++g) {
              const Bytes x = load_bytes(codes + 64 * g + p);
              bit0.add(x & ((bits & splat(1 << (2 * g))) != 0));
              bit1.add(x & ((bits & splat(2 << (2 * g))) != 0));
            }
          }
        }
        once += bit0.total();
        twice += bit1.total();
      }
      at.tiles[s] = block;
      *at.acc[s]++ = once + twice + twice - a.sum;
    }
  }
}

// Per group of 3 columns one table of 14 sums, shared by the 32 rows of every stream's tile.
BITINFER_INLINE void gemv_addsub_t3(const TileStreams& streams, int64_t num_blocks,
                                    const Activation& a) {
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams && num_blocks >= 1);
  TileStreams at = streams;  // stepped along: the next K-block and the sums of the current tile
  int32_t table[8][32] = {};
  for (int64_t t = 0; t < streams.tiles_per_stream; ++t) {
    for (int s = 0; s < streams.num_streams; ++s) {
      for (int r = 0; r < kT3Rows; ++r) at.acc[s][r] = 0;
    }
    const int8_t* codes = a.codes;
    for (int64_t b = 0; b < num_blocks; ++b, codes += kT3Cols) {
      for (int j = 0; j < 8; ++j) build_t3(codes + 2 * j + j, table[j]);
      for (int s = 0; s < streams.num_streams; ++s) {
        const uint8_t* block = at.tiles[s];
        for (int r = 0; r < kT3Rows; ++r) {
          int32_t sum = 0;
          const int signs = block[128 + r];
          for (int i = 0; i < 4; ++i) {
            const int pair = block[32 * i + r];
            const int sign = signs << (2 * i);  // bit 7: group 2i, bit 6: group 2i + 1
            sum += table[2 * i][(pair & 15) | ((sign >> 3) & 16)];
            sum += table[2 * i + 1][(pair >> 4) | ((sign >> 2) & 16)];
          }
          at.acc[s][r] += sum;
        }
        at.tiles[s] += kT3Bytes;
      }
    }
    for (int s = 0; s < streams.num_streams; ++s) at.acc[s] += kT3Rows;
  }
}

// Per K-block (`columns` activations, a byte of each of 64 rows) one table of 256 sums, shared by
// every stream's tile.
template <int columns, void (*build)(const int8_t* a, int32_t* t)>
BITINFER_INLINE void gemv_addsub_bytes(const TileStreams& streams, int64_t num_blocks,
                                       const Activation& a) {
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams && num_blocks >= 1);
  TileStreams at = streams;  // stepped along: the next K-block and the sums of the current tile
  int32_t table[256] = {};
  for (int64_t t = 0; t < streams.tiles_per_stream; ++t) {
    for (int s = 0; s < streams.num_streams; ++s) {
      for (int r = 0; r < kByteRows; ++r) at.acc[s][r] = 0;
    }
    const int8_t* codes = a.codes;
    for (int64_t b = 0; b < num_blocks; ++b, codes += columns) {
      build(codes, table);
      for (int s = 0; s < streams.num_streams; ++s) {
        const uint8_t* block = at.tiles[s];
        for (int r = 0; r < kByteRows; ++r) at.acc[s][r] += table[block[r]];
        at.tiles[s] += kByteRows;
      }
    }
    for (int s = 0; s < streams.num_streams; ++s) at.acc[s] += kByteRows;
  }
}
