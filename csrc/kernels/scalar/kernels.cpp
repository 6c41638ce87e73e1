// The scalar row: the fallback of every machine, and the readable form of each algorithm of the
// other rows.
//
// Every kernel reads whole tiles and is memory-safe on any bytes; impossible codes only give
// meaningless sums. The addsub kernels hold no multiply instruction (pointers are stepped, never
// computed by a product).
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
// clang-format off: the vocabulary first
#include "kernels/scalar/simd.h"
#include "kernels/generic/float_kernels.inl.h"
// clang-format on

namespace bitinfer {
namespace scalar {
namespace {

#define BITINFER_INLINE inline __attribute__((always_inline))

constexpr int kI2Bytes = 64, kT3Bytes = 160, kT5Bytes = 64;
constexpr int kI2Cols = 256, kT3Cols = 24, kT5Cols = 5;
constexpr int kT3Rows = 32, kT5Rows = 64;

// ---- sums by table look-up (t3, t5) ----

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

// ---- tiles to int8 (dot, GEMM) ----

// Trits of every packed value, most significant first; impossible magnitudes are zero.
struct Trits {
  int8_t t3[32][3];  // index: magnitude | sign << 4
  int8_t t5[256][5];
};

constexpr Trits make_trits() {
  Trits t{};
  for (int sign = 0; sign < 2; ++sign) {
    for (int magnitude = 0; magnitude <= 121; ++magnitude) {
      int v = sign ? -magnitude : magnitude;
      int8_t digit[5] = {};
      for (int i = 4; i >= 0; --i) {
        const int d = (v + 243 + 1) % 3 - 1;
        digit[i] = static_cast<int8_t>(d);
        v = (v - d) / 3;
      }
      for (int i = 0; i < 5; ++i) t.t5[magnitude | sign << 7][i] = digit[i];
      if (magnitude <= 13) {
        for (int i = 0; i < 3; ++i) t.t3[magnitude | sign << 4][i] = digit[2 + i];
      }
    }
  }
  return t;
}
constexpr Trits kTrits = make_trits();

// One K-block of a tile to int8 rows (tile_rows, block_k) that lie `stride` apart.
BITINFER_INLINE void decode_i2(const uint8_t* block, int8_t* w, int64_t) {
  for (int g = 0; g < 4; ++g) {
    for (int p = 0; p < 64; ++p)
      w[64 * g + p] = static_cast<int8_t>(((block[p] >> (2 * g)) & 3) - 1);
  }
}

BITINFER_INLINE void decode_t3(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < kT3Rows; ++r, w += stride) {
    const int signs = block[128 + r];
    for (int j = 0; j < 8; ++j) {
      const int magnitude = (block[32 * (j / 2) + r] >> (4 * (j % 2))) & 15;
      const int8_t* trits = kTrits.t3[magnitude | ((signs >> (7 - j)) & 1) << 4];
      for (int i = 0; i < 3; ++i) w[3 * j + i] = trits[i];
    }
  }
}

BITINFER_INLINE void decode_t5(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < kT5Rows; ++r, w += stride) {
    const int8_t* trits = kTrits.t5[block[r]];
    for (int i = 0; i < 5; ++i) w[i] = trits[i];
  }
}

template <Packing packing>
BITINFER_INLINE void decode_block(const uint8_t* block, int8_t* w, int64_t stride) {
  if constexpr (packing == Packing::kI2) decode_i2(block, w, stride);
  if constexpr (packing == Packing::kT3) decode_t3(block, w, stride);
  if constexpr (packing == Packing::kT5) decode_t5(block, w, stride);
}

BITINFER_INLINE int32_t dot_i8(const int8_t* w, const int8_t* a, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += w[i] * a[i];
  return sum;
}

// A piece of K-blocks of one tile is decoded once, then multiplied with all M rows of a.
template <Packing packing>
BITINFER_INLINE void gemm_tile(const uint8_t* tile, int64_t num_blocks, const int8_t* a,
                               int64_t a_stride, int64_t m, int32_t* acc, int64_t acc_stride,
                               int8_t* piece, int64_t piece_blocks) {
  constexpr PackedLayout kLayout = layout(packing);
  const int64_t stride = piece_blocks * kLayout.block_k;
  for (int64_t first = 0; first < num_blocks; first += piece_blocks) {
    const int64_t blocks = num_blocks - first < piece_blocks ? num_blocks - first : piece_blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      decode_block<packing>(tile + (first + b) * kLayout.block_bytes, piece + b * kLayout.block_k,
                            stride);
    }
    for (int64_t i = 0; i < m; ++i) {
      const int8_t* a_piece = a + i * a_stride + first * kLayout.block_k;
      for (int64_t r = 0; r < kLayout.tile_rows; ++r) {
        const int32_t sum = dot_i8(piece + r * stride, a_piece, blocks * kLayout.block_k);
        acc[i * acc_stride + r] = first ? acc[i * acc_stride + r] + sum : sum;
      }
    }
  }
}

// GEMV of the dot family: the GEMM's tile with M = 1 and a piece that stays in the first-level
// cache.
template <Packing packing>
BITINFER_INLINE void gemv_dot(const TileStreams& streams, int64_t num_blocks, const Activation& a) {
  constexpr PackedLayout kLayout = layout(packing);
  constexpr int64_t kPieceBlocks = ceil_div(120, kLayout.block_k);
  alignas(64) int8_t piece[kLayout.tile_rows * kPieceBlocks * kLayout.block_k];
  for (int64_t t = 0; t < streams.tiles_per_stream; ++t) {
    for (int s = 0; s < streams.num_streams; ++s) {
      gemm_tile<packing>(streams.tiles[s] + t * num_blocks * kLayout.block_bytes, num_blocks,
                         a.codes, 0, 1, streams.acc[s] + t * kLayout.tile_rows, 0, piece,
                         kPieceBlocks);
    }
  }
}

template <Packing packing>
BITINFER_INLINE void gemm(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                          const int8_t* a, int64_t a_stride, int64_t m, int32_t* acc,
                          int64_t acc_stride, uint8_t* scratch) {
  constexpr PackedLayout kLayout = layout(packing);
  constexpr int64_t kPieceBlocks = kGemmScratchBytes / 2 / (kLayout.tile_rows * kLayout.block_k);
  const int64_t piece_blocks = num_blocks < kPieceBlocks ? num_blocks : kPieceBlocks;
  assert(m >= 1 && num_tiles >= 1 && num_blocks >= 1);
  for (int64_t t = 0; t < num_tiles; ++t) {
    gemm_tile<packing>(tiles + t * num_blocks * kLayout.block_bytes, num_blocks, a, a_stride, m,
                       acc + t * kLayout.tile_rows, acc_stride, reinterpret_cast<int8_t*>(scratch),
                       piece_blocks);
  }
}

}  // namespace

// ---- GEMV by additions and subtractions ----

// A code is c = bit0 + 2 bit1 = w + 1, so acc = (sum of a where bit0) + 2 (sum of a where bit1) -
// sum(a): masked sums.
void ternary_gemv_addsub_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
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
void ternary_gemv_addsub_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
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

// Per 5 columns one table of 122 sums and their negatives, shared by the 64 rows of every stream's
// tile.
void ternary_gemv_addsub_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                   const Activation& a) {
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams && num_blocks >= 1);
  TileStreams at = streams;  // stepped along: the next K-block and the sums of the current tile
  int32_t table[256] = {};
  for (int64_t t = 0; t < streams.tiles_per_stream; ++t) {
    for (int s = 0; s < streams.num_streams; ++s) {
      for (int r = 0; r < kT5Rows; ++r) at.acc[s][r] = 0;
    }
    const int8_t* codes = a.codes;
    for (int64_t b = 0; b < num_blocks; ++b, codes += kT5Cols) {
      build_t5(codes, table);
      for (int s = 0; s < streams.num_streams; ++s) {
        const uint8_t* block = at.tiles[s];
        for (int r = 0; r < kT5Rows; ++r) at.acc[s][r] += table[block[r]];
        at.tiles[s] += kT5Bytes;
      }
    }
    for (int s = 0; s < streams.num_streams; ++s) at.acc[s] += kT5Rows;
  }
}

// ---- GEMV by dot products ----

void ternary_gemv_dot_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kI2>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kT3>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kT5>(streams, num_blocks, a);
}

// ---- GEMM ----

void ternary_gemm_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kI2>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void ternary_gemm_i8_t3_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT3>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT5>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
             const int32_t* /*a_sum*/, int64_t m, int64_t k_padded, int32_t* acc,
             int64_t acc_stride) {
  assert(n >= 1 && m >= 1 && k_padded % 64 == 0);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < m; ++i)
      acc[i * acc_stride + r] = dot_i8(w + r * k_padded, a + i * a_stride, k_padded);
  }
}

// ---- memory ----

uint32_t read_streams(const uint8_t* data, int64_t bytes, int num_streams) {
  constexpr int64_t kLine = 64, kAhead = 1024;  // prefetch distance, bytes
  const int64_t stream_bytes = bytes / num_streams;
  assert(bytes % (kLine * num_streams) == 0);
  uint32_t lanes[16] = {};
  for (int64_t at = 0; at < stream_bytes; at += kLine) {
    for (int s = 0; s < num_streams; ++s) {
      const uint8_t* line = data + s * stream_bytes + at;
      __builtin_prefetch(line + kAhead);
      uint32_t words[16];
      __builtin_memcpy(words, line, sizeof(words));
      for (int i = 0; i < 16; ++i) lanes[i] += words[i];
    }
  }
  uint32_t sum = 0;
  for (uint32_t lane : lanes) sum += lane;
  return sum;
}

KernelTable make_kernel_table() {
  KernelTable t{};
  t.gemv_addsub[0] = ternary_gemv_addsub_i8_i2_i32;
  t.gemv_addsub[1] = ternary_gemv_addsub_i8_t3_i32;
  t.gemv_addsub[2] = ternary_gemv_addsub_i8_t5_i32;
  t.gemv_dot[0] = ternary_gemv_dot_i8_i2_i32;
  t.gemv_dot[1] = ternary_gemv_dot_i8_t3_i32;
  t.gemv_dot[2] = ternary_gemv_dot_i8_t5_i32;
  t.gemm[0] = ternary_gemm_i8_i2_i32;
  t.gemm[1] = ternary_gemm_i8_t3_i32;
  t.gemm[2] = ternary_gemm_i8_t5_i32;
  for (GemvFamily& family : t.auto_family) family = GemvFamily::kAddsub;
  t.auto_packing = Packing::kT5;
  t.gemm_i8 = gemm_i8;
  t.read_streams = read_streams;
  t.f32 = make_float_kernels();
  return t;
}

}  // namespace scalar
}  // namespace bitinfer
