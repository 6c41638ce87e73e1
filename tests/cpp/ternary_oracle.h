// The packed layouts and the sums once more, as plain loops that share no code with csrc/: the
// kernels' oracle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pack/format.h"

namespace bitinfer_test {

// splitmix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t operator()() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>(z >> 32);
  }
  int below(int limit) {
    return static_cast<int>((*this)() % static_cast<uint32_t>(limit));
  }  // 0..limit-1

 private:
  uint64_t state_;
};

inline int8_t random_weight(bool binary, Random* random) {
  return static_cast<int8_t>(binary ? 2 * random->below(2) - 1 : random->below(3) - 1);
}

// b1 holds no weight 0.
inline bool is_binary(bitinfer::Packing packing) { return packing == bitinfer::Packing::kB1; }

// (rows, columns) int8, columns padded with zeros to whole blocks of the packing; rows fill whole
// tiles.
struct TernaryMatrix {
  int64_t rows;
  int64_t columns;
  std::vector<int8_t> w;
  int8_t at(int64_t r, int64_t k) const { return w[static_cast<std::size_t>(r * columns + k)]; }
};

// The bytes of block `block` of the tile whose first row is `row`, as format.h draws them.
inline void encode_block(const TernaryMatrix& m, bitinfer::Packing packing, int64_t row,
                         int64_t block, uint8_t* out) {
  const bitinfer::PackedLayout& l = bitinfer::layout(packing);
  const int64_t first = block * l.block_k;
  for (int64_t i = 0; i < l.block_bytes; ++i) out[i] = 0;
  if (packing == bitinfer::Packing::kI2) {
    for (int64_t k = 0; k < 256; ++k) {
      out[k % 64] =
          static_cast<uint8_t>(out[k % 64] | ((m.at(row, first + k) + 1) << (2 * (k / 64))));
    }
    return;
  }
  for (int64_t r = 0; r < l.tile_rows; ++r) {
    if (packing == bitinfer::Packing::kB1) {
      for (int64_t k = 0; k < 8; ++k) {
        if (m.at(row + r, first + k) == 1) out[r] = static_cast<uint8_t>(out[r] + (1 << k));
      }
      continue;
    }
    if (packing == bitinfer::Packing::kT5) {
      int v = 0;
      for (int64_t k = 0; k < 5; ++k) v = 3 * v + m.at(row + r, first + k);
      out[r] = static_cast<uint8_t>(v < 0 ? 0x80 - v : v);
      continue;
    }
    for (int64_t j = 0; j < 8; ++j) {
      int v = 0;
      for (int64_t k = 0; k < 3; ++k) v = 3 * v + m.at(row + r, first + 3 * j + k);
      uint8_t& pair = out[32 * (j / 2) + r];
      pair = static_cast<uint8_t>(pair | ((v < 0 ? -v : v) << (j % 2 == 0 ? 0 : 4)));
      if (v < 0) out[128 + r] = static_cast<uint8_t>(out[128 + r] | (0x80 >> j));
    }
  }
}

// All tiles one after the other: rows / tile_rows * tile_bytes(k) bytes at `out`.
inline void encode(const TernaryMatrix& m, bitinfer::Packing packing, uint8_t* out) {
  const bitinfer::PackedLayout& l = bitinfer::layout(packing);
  for (int64_t row = 0; row < m.rows; row += l.tile_rows) {
    for (int64_t block = 0; block < m.columns / l.block_k; ++block) {
      encode_block(m, packing, row, block, out);
      out += l.block_bytes;
    }
  }
}

// sum_k w[k] * a[k]
inline int32_t dot(const int8_t* w, const int8_t* a, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += w[i] * a[i];
  return sum;
}

}  // namespace bitinfer_test
