// What the unread low plane of a two-plane head can add to a row's sum.
//
// With c + 128 = (h << b) + l, m = 2^b - 1, s the 15-bit codes of the hidden state, S = sum_k s_k:
//   sum_k c_k s_k = 2^b sum_k h_k s_k - 128 S + (m S + e) / 2,   e = sum_k (2 l_k - m) s_k
// Only e needs the low plane, and (m S + e) / 2 is a whole number.
//
// 6+2, proven: 2l - 3 is one of -3, -1, 1, 3. Where n columns have 3 or -3,
//   e <= sum_k |s_k| + 2 (sum of the n largest |s_k|)
// in whole numbers, with equality where the signs agree and the n columns are those of the largest
// |s_k|: no bound that knows s and n alone is smaller. It is never above Cauchy-Schwarz's
// ||2l - 3|| ||s||, which holds for every order of the same numbers.
//
// 5+3, statistical: e is taken to be at most 8 standard deviations of a sum of independent terms of
// random sign, 8 ||2l - 7|| ||s|| / sqrt(K). Rows can be built that exceed it (docs/head.md).
#pragma once

#include <cstdint>

#include "pack/head_planes.h"

namespace bitinfer {

// Of one hidden state.
struct HeadBound {
  HeadSplit split;
  const int32_t* most;  // 6+2: (2, K + 1): for each n, what to add to the sums of both planes
  int64_t centre;       // 5+3: m S - 256 S
  float factor;         // 5+3: 8 ||s|| / sqrt(K)
};

// hi, lo: (K) planes of the state, s = 128 hi + lo, both of one sign; sums: of hi and of lo; most:
// (2, K + 1) and order: (2 K) are overwritten, the former is kept.
HeadBound bound_state(HeadSplit split, const int8_t* hi, const int8_t* lo, const int32_t* sums,
                      int64_t k, int32_t* most, uint16_t* order);

// In place, sums (n) of h with both planes of the state become those of the largest
// 128 hi + lo = sum_k c_k s_k that the bound allows. residual: (n) of split_head.
void raise_sums(const HeadBound& bound, const int32_t* residual, int64_t n, int64_t k, int32_t* hi,
                int32_t* lo);

}  // namespace bitinfer
