// RMSNorm and the quantization of activations; contracts in kernels/float_kernels.h.
#pragma once
#include "kernels/generic/elementary.inl.h"

namespace bitinfer {
namespace {

inline void rms_norm(const float* x, const float* w, int64_t k, float eps, float* y) {
  F32x16 squares = zero_f32();
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    const F32x16 v = load_f32(x + i);
    __builtin_prefetch(w + i);  // of every layer its own, so not in the cache
    squares = squares + v * v;
  }
  if (i < k) {
    const F32x16 v = load_tail_f32(x + i, k - i);
    squares = squares + v * v;
  }
  const float mean = fold_add(squares) / static_cast<float>(k);
  const F32x16 inv = set_f32(1.0f / __builtin_sqrtf(mean + eps));
  map_row(k, y, [&](int64_t, auto load) { return (load(x) * inv) * load(w); });
}

inline void layer_norm(const float* x, int64_t k, float eps, float* y) {
  const float n = static_cast<float>(k);
  F32x16 sums = zero_f32(), squares = zero_f32();
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) sums = sums + load_f32(x + i);
  if (i < k) sums = sums + load_tail_f32(x + i, k - i);
  const F32x16 mean = set_f32(fold_add(sums) / n);
  map_row(k, y, [&](int64_t, auto load) { return load(x) - mean; });
  for (i = 0; i + 16 <= k; i += 16) {
    const F32x16 d = load_f32(y + i);
    squares = squares + d * d;
  }
  if (i < k) {
    const F32x16 d = load_tail_f32(y + i, k - i);
    squares = squares + d * d;
  }
  const F32x16 inv = set_f32(1.0f / __builtin_sqrtf(fold_add(squares) / n + eps));
  map_row(k, y, [&](int64_t, auto load) { return load(y) * inv; });
}

inline float floored_absmax(const float* x, int64_t k) {
  F32x16 most[4];  // that do not wait for each other
  for (F32x16& m : most) m = set_f32(1e-5f);
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; j < 4; ++j) most[j] = max(abs(load_f32(x + i + 16 * j)), most[j]);
  }
  for (; i + 16 <= k; i += 16) most[0] = max(abs(load_f32(x + i)), most[0]);
  if (i < k) most[0] = max(abs(load_tail_f32(x + i, k - i)), most[0]);
  return fold_max(max(max(most[0], most[1]), max(most[2], most[3])));
}

// clamp(rint(v), low, high): the bounds are integers, so the order of the two does not matter.
inline I32x16 clamped_codes(F32x16 v, F32x16 low, F32x16 high) {
  return round_i32(min(max(v, low), high));
}

inline float quantize_i8(const float* x, int64_t k, int64_t codes_bytes, float levels,
                         int8_t* codes, int32_t* sum) {
  const float m = floored_absmax(x, k);
  const F32x16 inv = set_f32(levels / m), low = set_f32(-128.0f), high = set_f32(127.0f);
  I32x16 sums = zero_i32();
  int64_t i = 0;
  for (; i < k; i += 16) {
    const F32x16 v = i + 16 <= k ? load_f32(x + i) : load_tail_f32(x + i, k - i);
    const I32x16 c = clamped_codes(v * inv, low, high);
    store_i8(codes + i, c);
    sums = sums + c;
  }
  for (; i < codes_bytes; i += 16) store_i8(codes + i, zero_i32());
  *sum = sum_i32(sums);
  return m / levels;
}

inline float quantize_planes(const float* x, int64_t k, int64_t codes_bytes, int8_t* hi, int8_t* lo,
                             int32_t sums[2]) {
  const float m = floored_absmax(x, k);
  const F32x16 inv = set_f32(16383.0f / m), low = set_f32(-16383.0f), high = set_f32(16383.0f);
  I32x16 sums_hi = zero_i32(), sums_lo = zero_i32();
  int64_t i = 0;
  for (; i < k; i += 16) {
    const F32x16 v = i + 16 <= k ? load_f32(x + i) : load_tail_f32(x + i, k - i);
    I32x16 c_hi, c_lo;
    split_planes(clamped_codes(v * inv, low, high), &c_hi, &c_lo);
    store_i8(hi + i, c_hi);
    store_i8(lo + i, c_lo);
    sums_hi = sums_hi + c_hi;
    sums_lo = sums_lo + c_lo;
  }
  for (; i < codes_bytes; i += 16) {
    store_i8(hi + i, zero_i32());
    store_i8(lo + i, zero_i32());
  }
  sums[0] = sum_i32(sums_hi);
  sums[1] = sum_i32(sums_lo);
  return m / 16383.0f;
}

}  // namespace
}  // namespace bitinfer
