#include "ops/head_bounds.h"

#include <cmath>
#include <cstdlib>

namespace bitinfer {
namespace {

constexpr float kSigmas = 8.0f;
constexpr int kDigits = 128;

// to = from, sorted by digit(value) from large to small, equal ones in order.
template <typename Digit>
void sort_by(const uint16_t* from, int64_t k, uint16_t* to, const Digit& digit) {
  int64_t start[kDigits + 1] = {};
  for (int64_t i = 0; i < k; ++i) ++start[kDigits - digit(from[i])];
  for (int d = 1; d <= kDigits; ++d) start[d] += start[d - 1];
  for (int64_t i = 0; i < k; ++i) to[start[kDigits - 1 - digit(from[i])]++] = from[i];
}

// |128 hi + lo| of every column, from large to small, in order[0..k).
void sort_magnitudes(const int8_t* hi, const int8_t* lo, int64_t k, uint16_t* order) {
  for (int64_t i = 0; i < k; ++i)
    order[i] = static_cast<uint16_t>(128 * std::abs(hi[i]) + std::abs(lo[i]));
  sort_by(order, k, order + k, [](uint16_t v) { return v % kDigits; });
  sort_by(order + k, k, order, [](uint16_t v) { return v / kDigits; });
}

}  // namespace

HeadBound bound_state(HeadSplit split, const int8_t* hi, const int8_t* lo, const int32_t* sums,
                      int64_t k, int32_t* most, uint16_t* order) {
  const int64_t sum = int64_t{128} * sums[0] + sums[1];
  const int64_t centre = ((int64_t{1} << layout(split).low_bits) - 1 - 256) * sum;
  HeadBound bound{split, most, centre, 0.0f};
  if (split == HeadSplit::k5And3) {
    int64_t squares = 0;
    for (int64_t i = 0; i < k; ++i) {
      const int64_t s = 128 * hi[i] + lo[i];
      squares += s * s;
    }
    bound.factor = kSigmas * static_cast<float>(
                                 std::sqrt(static_cast<double>(squares) / static_cast<double>(k)));
    return bound;
  }
  sort_magnitudes(hi, lo, k, order);
  int64_t e = 0;
  for (int64_t i = 0; i < k; ++i) e += order[i];
  for (int64_t n = 0; n <= k; ++n) {
    const int64_t add = (centre + e) >> 1;  // rounds down, as the sum is whole
    most[n] = static_cast<int32_t>(add >> 7);
    most[k + 1 + n] = static_cast<int32_t>(add & 127);
    if (n < k) e += 2 * order[n];
  }
  return bound;
}

void raise_sums(const HeadBound& bound, const int32_t* residual, int64_t n, int64_t k,
                int32_t* __restrict hi, int32_t* __restrict lo) {
  if (bound.split == HeadSplit::k6And2) {
    for (int64_t r = 0; r < n; ++r) {
      hi[r] = 4 * hi[r] + bound.most[residual[r]];
      lo[r] = 4 * lo[r] + bound.most[k + 1 + residual[r]];
    }
    return;
  }
  // Whole numbers of 32 bits, so that it runs on vectors: e < 2^28 as |s| < 2^14 and K < 2^16.
  const auto centre_hi = static_cast<int32_t>((bound.centre + 1) >> 8);
  const auto centre_lo = static_cast<int32_t>((bound.centre + 1) & 255);
  for (int64_t r = 0; r < n; ++r) {
    const float e = bound.factor * std::sqrt(static_cast<float>(residual[r]));
    const int32_t add = centre_lo + static_cast<int32_t>(e);
    hi[r] = 8 * hi[r] + centre_hi + (add >> 8);
    lo[r] = 8 * lo[r] + (add >> 1 & 127);
  }
}

}  // namespace bitinfer
