// The two-plane form of an int8 head (N, K): the one truth of its layout.
//
//   b = code + 128 = (h << low_bits) + l,   h in the high plane, l in the low plane
//
// The high plane is read for every row, the low plane only for rows that it leaves in doubt. Each
// plane is an area of its own, rows contiguous. A row is cut into blocks of `groups` groups of 64
// columns, the last block having as many pairs of groups as K needs; columns beyond K hold code 0.
//
// high  64 bytes: byte p, from bit g * middle_bits on, the upper middle_bits bits of h of column p
//       of group g; then 64 bytes for each pair of groups: byte p = bits 3..0 of h of column p of
//       the even group in its low nibble, of the odd group in its high nibble. So a kernel touches
//       its lines in the order of their addresses: otherwise they come at half of memory's speed.
// low   6+2: 64 bytes: byte p, bits 2g+1..2g = l of column p of group g
//       5+3: 64 bytes: byte p, bit g = bit 2 of l; then 64 bytes for each four groups: byte p, bits
//       2(g % 4) + 1..2(g % 4) = bits 1..0 of l
#pragma once

#include <cstdint>

#include "pack/format.h"

namespace bitinfer {

enum class HeadSplit : int { k6And2 = 0, k5And3 = 1 };
constexpr int kNumHeadSplits = 2;

struct HeadSplitLayout {
  const char* name;
  int low_bits;
  int middle_bits;  // of h above its nibble
  int groups;       // of 64 columns in a whole block: 8 / middle_bits
};

constexpr HeadSplitLayout kHeadSplits[kNumHeadSplits] = {{"6+2", 2, 2, 4}, {"5+3", 3, 1, 8}};

constexpr int64_t kMaxPlaneColumns = 32768;  // sums of a row fit 32 bits with room to spare

constexpr const HeadSplitLayout& layout(HeadSplit s) { return kHeadSplits[static_cast<int>(s)]; }
constexpr int64_t plane_pairs(int64_t k) { return ceil_div(k, 128); }
// Columns that a row of activations holds, zeros beyond K.
constexpr int64_t plane_columns(int64_t k) { return 128 * plane_pairs(k); }
constexpr int64_t plane_blocks(HeadSplit s, int64_t k) {
  return ceil_div(plane_pairs(k), layout(s).groups / 2);
}
constexpr int64_t high_row_bytes(HeadSplit s, int64_t k) {
  return 64 * (plane_pairs(k) + plane_blocks(s, k));
}
constexpr int64_t low_row_bytes(HeadSplit s, int64_t k) {
  const int64_t bits01 = s == HeadSplit::k6And2 ? 0 : ceil_div(plane_pairs(k), 2);
  return 64 * (plane_blocks(s, k) + bits01);
}

// codes (n, round_up(k, 64)) -> high (n, high_row_bytes), low (n, low_row_bytes), both zeroed
// before, and of each row what bounds the share of its low plane in a sum (ops/head_bounds.h), over
// columns < K: 6+2: how many (2l - 3) are 3 or -3; 5+3: the sum of (2l - 7)².
void split_head(HeadSplit split, const int8_t* codes, int64_t n, int64_t k, uint8_t* high,
                uint8_t* low, int32_t* residual, int num_threads);

}  // namespace bitinfer
