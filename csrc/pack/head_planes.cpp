#include "pack/head_planes.h"

#include <algorithm>
#include <cstring>

#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr int64_t kGroup = 64;  // columns

// Puts bits drop .. drop + bits - 1 of each of 64 values at bit `shift` of 64 bytes that are zero
// there, eight at a time.
void put(const uint8_t* values, int drop, int bits, int shift, uint8_t* to) {
  const uint64_t mask = ((uint64_t{1} << bits) - 1) * 0x0101010101010101u;
  for (int64_t p = 0; p < kGroup; p += 8) {
    uint64_t from, bytes;
    std::memcpy(&from, values + p, 8);
    std::memcpy(&bytes, to + p, 8);
    bytes |= ((from >> drop) & mask) << shift;
    std::memcpy(to + p, &bytes, 8);
  }
}

// One group of columns, given as b, group g of a block.
void split_group(HeadSplit split, const uint8_t* b, int64_t g, uint8_t* high, uint8_t* low) {
  const int low_bits = layout(split).low_bits, middle_bits = layout(split).middle_bits;
  const int at = static_cast<int>(g);
  put(b, low_bits, 4, 4 * (at % 2), high + kGroup * (1 + g / 2));
  put(b, low_bits + 4, middle_bits, at * middle_bits, high);
  if (split == HeadSplit::k6And2) {
    put(b, 0, 2, 2 * at, low);
  } else {
    put(b, 2, 1, at, low);
    put(b, 0, 2, 2 * (at % 4), low + kGroup * (1 + g / 4));
  }
}

int32_t residual_of(HeadSplit split, const uint8_t* b, int64_t count) {
  int32_t sum = 0;
  if (split == HeadSplit::k6And2) {
    for (int64_t p = 0; p < count; ++p) sum += 1 ^ ((b[p] ^ b[p] >> 1) & 1);  // l = 0 or 3
  } else {
    for (int64_t p = 0; p < count; ++p) {
      const int twice = 2 * (b[p] & 7) - 7;
      sum += twice * twice;
    }
  }
  return sum;
}

int32_t split_row(HeadSplit split, const int8_t* codes, int64_t k, uint8_t* high, uint8_t* low) {
  const int64_t block_pairs = layout(split).groups / 2, padded = round_up(k, kGroup);
  int32_t residual = 0;
  for (int64_t pair = 0; pair < plane_pairs(k); pair += block_pairs) {
    const int64_t pairs = std::min(block_pairs, plane_pairs(k) - pair);
    for (int64_t g = 0; g < 2 * pairs; ++g) {
      const int64_t column = kGroup * (2 * pair + g);
      uint8_t b[kGroup];
      std::memset(b, 0, kGroup);
      if (column < padded) std::memcpy(b, codes + column, kGroup);
      for (uint8_t& value : b) value ^= 128;  // code + 128
      residual += residual_of(split, b, std::clamp<int64_t>(k - column, 0, kGroup));
      split_group(split, b, g, high, low);
    }
    high += kGroup * (pairs + 1);
    low += kGroup * (split == HeadSplit::k6And2 ? 1 : 1 + ceil_div(pairs, 2));
  }
  return residual;
}

}  // namespace

void split_head(HeadSplit split, const int8_t* codes, int64_t n, int64_t k, uint8_t* high,
                uint8_t* low, int32_t* residual, int num_threads) {
  const int64_t high_bytes = high_row_bytes(split, k), low_bytes = low_row_bytes(split, k);
  parallel_for(num_threads, 0, n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      residual[r] = split_row(split, codes + r * round_up(k, kGroup), k, high + r * high_bytes,
                              low + r * low_bytes);
    }
  });
}

}  // namespace bitinfer
