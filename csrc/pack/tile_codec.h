// One K-block of one tile to and from int8 weights, and the test for impossible codes. Private to
// pack/.
//
// i2 blocks hold one row, so they are coded from rows. The others hold a byte of each row
// side by side, so they are coded from a strip: 120 columns of 64 rows, each column's rows side by
// side, which makes all arithmetic vertical. Plain C++ on 16-byte vectors: the kernels have their
// own unpacking.
#pragma once

#include <cstdint>
#include <cstring>

#include "pack/format.h"

namespace bitinfer {
namespace codec {

constexpr int64_t kStripRows = 64;   // whole tiles of every packing
constexpr int64_t kStripCols = 120;  // whole blocks of t3, t5 and b1, and whole squares of 8 x 8

typedef int8_t Bytes __attribute__((vector_size(16)));
typedef uint64_t Words __attribute__((vector_size(16)));

inline Bytes load_bytes(const void* from) {
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return bytes;
}
inline void store_bytes(void* to, Bytes bytes) { std::memcpy(to, &bytes, sizeof(bytes)); }
inline Bytes splat(int value) { return Bytes{} + static_cast<int8_t>(value); }

// A comparison gives -1 or 0 in each byte.
inline Bytes negate_where(Bytes x, Bytes mask) { return (x ^ mask) - mask; }

// Byte shifts by way of words, which every vector unit has: no bit that stays may come from a
// neighbour, so up() takes small bytes and down() keeps the bits of `mask` only.
inline Bytes up(Bytes x, int bits) {
  return reinterpret_cast<Bytes>(reinterpret_cast<Words>(x) << bits);
}
inline Bytes down(Bytes x, int bits, int mask) {
  return reinterpret_cast<Bytes>(reinterpret_cast<Words>(x) >> bits) & splat(mask);
}

// ---- rows to strips and back ----

// Exchanges, in pairs (x[i], x[i + step]), the bytes that a transposition moves across.
template <int step>
inline void exchange(uint64_t* x, uint64_t mask) {
  for (int i = 0; i < 8; ++i) {
    if (i & step) continue;
    const uint64_t moved = ((x[i] >> (8 * step)) ^ x[i + step]) & mask;
    x[i + step] ^= moved;
    x[i] ^= moved << (8 * step);
  }
}

// to[j][i] = from[i][j] for i, j < 8; little-endian words, as on every machine that we build for.
inline void transpose_square(const int8_t* from, int64_t from_stride, int8_t* to,
                             int64_t to_stride) {
  uint64_t x[8];
  for (int i = 0; i < 8; ++i) std::memcpy(x + i, from + i * from_stride, 8);
  exchange<4>(x, 0x00000000ffffffffu);
  exchange<2>(x, 0x0000ffff0000ffffu);
  exchange<1>(x, 0x00ff00ff00ff00ffu);
  for (int i = 0; i < 8; ++i) std::memcpy(to + i * to_stride, x + i, 8);
}

// rows: (kStripRows, kStripCols), `stride` apart; strip: (kStripCols, kStripRows).
inline void rows_to_strip(const int8_t* rows, int64_t stride, int8_t* strip) {
  for (int64_t r = 0; r < kStripRows; r += 8) {
    for (int64_t c = 0; c < kStripCols; c += 8)
      transpose_square(rows + r * stride + c, stride, strip + c * kStripRows + r, kStripRows);
  }
}

inline void strip_to_rows(const int8_t* strip, int8_t* rows, int64_t stride) {
  for (int64_t r = 0; r < kStripRows; r += 8) {
    for (int64_t c = 0; c < kStripCols; c += 8)
      transpose_square(strip + c * kStripRows + r, kStripRows, rows + r * stride + c, stride);
  }
}

// ---- i2 ----

inline void encode_i2(const int8_t* w, uint8_t* block) {
  for (int p = 0; p < 64; p += 16) {
    Bytes codes = load_bytes(w + p) + splat(1);
    for (int g = 1; g < 4; ++g) codes |= up(load_bytes(w + 64 * g + p) + splat(1), 2 * g);
    store_bytes(block + p, codes);
  }
}

inline void decode_i2(const uint8_t* block, int8_t* w) {
  for (int p = 0; p < 64; p += 16) {
    const Bytes codes = load_bytes(block + p);
    for (int g = 0; g < 4; ++g) store_bytes(w + 64 * g + p, down(codes, 2 * g, 3) - splat(1));
  }
}

inline Bytes faults_i2(const uint8_t* block) {
  Bytes bad{};
  for (int p = 0; p < 64; p += 16) {
    const Bytes codes = load_bytes(block + p);
    bad |= codes & down(codes, 1, 0x55);
  }
  return bad;
}

// ---- t3, t5 and b1: a strip's columns from `columns` on, kStripRows apart; 16 rows at a time ----

// v = ... + 3 w[count - 2] + w[count - 1]
template <int count>
inline Bytes join_trits(const int8_t* columns) {
  Bytes v = load_bytes(columns);
  for (int i = 1; i < count; ++i) v = v + v + v + load_bytes(columns + i * kStripRows);
  return v;
}

// The next trits, of weight w and below, of v in -(3w - 1)/2..(3w - 1)/2: the rest of a balanced
// number is at most (w - 1) / 2.
template <int w>
inline void split_trits(Bytes v, int8_t* columns) {
  if constexpr (w == 1) {
    store_bytes(columns, v);
  } else {
    const Bytes plus = v > splat((w - 1) / 2);
    const Bytes minus = v < splat(-((w - 1) / 2));
    store_bytes(columns, minus - plus);
    split_trits<w / 3>(v - (plus & splat(w)) + (minus & splat(w)), columns + kStripRows);
  }
}

inline void encode_t3(const int8_t* columns, uint8_t* block) {
  for (int r = 0; r < 32; r += 16) {
    Bytes signs{};
    for (int j = 0; j < 8; j += 2) {
      const Bytes even = join_trits<3>(columns + 3 * j * kStripRows + r);
      const Bytes odd = join_trits<3>(columns + 3 * (j + 1) * kStripRows + r);
      const Bytes even_sign = even < 0;
      const Bytes odd_sign = odd < 0;
      store_bytes(block + 16 * j + r,
                  negate_where(even, even_sign) | up(negate_where(odd, odd_sign), 4));
      signs |= (even_sign & splat(128 >> j)) | (odd_sign & splat(64 >> j));
    }
    store_bytes(block + 128 + r, signs);
  }
}

inline void decode_t3(const uint8_t* block, int8_t* columns) {
  for (int r = 0; r < 32; r += 16) {
    const Bytes signs = load_bytes(block + 128 + r);
    for (int j = 0; j < 8; ++j) {
      const Bytes pair = load_bytes(block + 32 * (j / 2) + r);
      const Bytes magnitude = j % 2 ? down(pair, 4, 15) : pair & splat(15);
      const Bytes sign = (signs & splat(128 >> j)) != 0;
      split_trits<9>(negate_where(magnitude, sign), columns + 3 * j * kStripRows + r);
    }
  }
}

inline Bytes faults_t3(const uint8_t* block) {
  Bytes bad{};
  for (int r = 0; r < 32; r += 16) {
    const Bytes signs = load_bytes(block + 128 + r);
    for (int j = 0; j < 8; ++j) {
      const Bytes pair = load_bytes(block + 32 * (j / 2) + r);
      const Bytes magnitude = j % 2 ? down(pair, 4, 15) : pair & splat(15);
      const Bytes zero = magnitude == 0;
      bad |= (magnitude > splat(13)) | (zero & signs & splat(128 >> j));
    }
  }
  return bad;
}

inline void encode_t5(const int8_t* columns, uint8_t* block) {
  for (int r = 0; r < 64; r += 16) {
    const Bytes v = join_trits<5>(columns + r);
    const Bytes sign = v < 0;
    store_bytes(block + r, negate_where(v, sign) | (sign & splat(-128)));
  }
}

inline void decode_t5(const uint8_t* block, int8_t* columns) {
  for (int r = 0; r < 64; r += 16) {
    const Bytes x = load_bytes(block + r);
    split_trits<81>(negate_where(x & splat(127), x < 0), columns + r);
  }
}

inline Bytes faults_t5(const uint8_t* block) {
  Bytes bad{};
  for (int r = 0; r < 64; r += 16) {
    const Bytes x = load_bytes(block + r);
    bad |= ((x & splat(127)) > splat(121)) | (x == splat(-128));
  }
  return bad;
}

inline void encode_b1(const int8_t* columns, uint8_t* block) {
  for (int r = 0; r < 64; r += 16) {
    Bytes bits{};
    for (int i = 0; i < 8; ++i)
      bits |= (load_bytes(columns + i * kStripRows + r) > 0) & splat(1 << i);
    store_bytes(block + r, bits);
  }
}

inline void decode_b1(const uint8_t* block, int8_t* columns) {
  for (int r = 0; r < 64; r += 16) {
    const Bytes bits = load_bytes(block + r);
    for (int i = 0; i < 8; ++i) {
      const Bytes minus = (bits & splat(1 << i)) == 0;
      store_bytes(columns + i * kStripRows + r, minus | splat(1));
    }
  }
}

// ---- by packing ----

// Of the packings that are coded from strips.
inline void encode(Packing packing, const int8_t* columns, uint8_t* block) {
  if (packing == Packing::kT3) return encode_t3(columns, block);
  packing == Packing::kT5 ? encode_t5(columns, block) : encode_b1(columns, block);
}

inline void decode(Packing packing, const uint8_t* block, int8_t* columns) {
  if (packing == Packing::kT3) return decode_t3(block, columns);
  packing == Packing::kT5 ? decode_t5(block, columns) : decode_b1(block, columns);
}

// Not zero where the block holds a code that encodes nothing.
inline Bytes faults(Packing packing, const uint8_t* block) {
  if (packing == Packing::kB1) return Bytes{};
  if (packing == Packing::kI2) return faults_i2(block);
  return packing == Packing::kT3 ? faults_t3(block) : faults_t5(block);
}

inline bool any(Bytes bytes) {
  const auto words = reinterpret_cast<Words>(bytes);
  return (words[0] | words[1]) != 0;
}

}  // namespace codec
}  // namespace bitinfer
