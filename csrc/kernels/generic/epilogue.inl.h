// What follows the integer sums of a linear layer; contracts in kernels/float_kernels.h.
#pragma once
#include "kernels/generic/elementary.inl.h"

namespace bitinfer {
namespace {

inline I32x16 load_tail_i32(const int32_t* p, int64_t n) {
  int32_t lanes[16] = {};
  __builtin_memcpy(lanes, p, static_cast<size_t>(n) * sizeof(int32_t));
  return load_i32(lanes);
}

inline I32x16 load_sums(const int32_t* acc, int64_t i, int64_t n) {
  return i + 16 <= n ? load_i32(acc + i) : load_tail_i32(acc + i, n - i);
}

inline void scale(const int32_t* acc, int64_t n, float act_scale, float weight_scale,
                  const float* bias, float* y) {
  const F32x16 a = set_f32(act_scale), w = set_f32(weight_scale);
  map_row(n, y, [&](int64_t i, auto load) {
    const F32x16 v = (to_f32(load_sums(acc, i, n)) * a) * w;
    return bias ? v + load(bias) : v;
  });
}

inline void scale_add(const int32_t* acc, int64_t n, float act_scale, float weight_scale,
                      const float* bias, float* x) {
  const F32x16 a = set_f32(act_scale), w = set_f32(weight_scale);
  map_row(n, x, [&](int64_t i, auto load) {
    const F32x16 v = (to_f32(load_sums(acc, i, n)) * a) * w;
    return load(x) + (bias ? v + load(bias) : v);
  });
}

inline void scale_head(const int32_t* hi, const int32_t* lo, int64_t n, float act_scale,
                       const float* row_scale, float* logits) {
  const F32x16 a = set_f32(act_scale);
  map_row(n, logits, [&](int64_t i, auto load) {
    return (join_planes(load_sums(hi, i, n), load_sums(lo, i, n)) * a) * load(row_scale);
  });
}

template <FloatType type>
inline void scale_rows_add_as(const int32_t* hi, const int32_t* lo, int64_t n, float act_scale,
                              const void* row_scale, float* y) {
  const F32x16 a = set_f32(act_scale);
  map_row(n, y, [&](int64_t i, auto load) {
    const I32x16 sums = load_sums(hi, i, n);
    const F32x16 acc = lo ? join_planes(sums, load_sums(lo, i, n)) : to_f32(sums);
    const F32x16 w =
        i + 16 <= n ? load_float<type>(row_scale, i) : load_float_tail<type>(row_scale, i, n - i);
    return load(y) + (acc * a) * w;
  });
}

inline void scale_rows_add(const int32_t* hi, const int32_t* lo, int64_t n, float act_scale,
                           const void* row_scale, FloatType type, float* y) {
  if (type == FloatType::kF32)
    return scale_rows_add_as<FloatType::kF32>(hi, lo, n, act_scale, row_scale, y);
  if (type == FloatType::kF16)
    return scale_rows_add_as<FloatType::kF16>(hi, lo, n, act_scale, row_scale, y);
  return scale_rows_add_as<FloatType::kBF16>(hi, lo, n, act_scale, row_scale, y);
}

inline void relu2_mul(const float* gate, const float* up, int64_t n, float* y) {
  map_row(n, y, [&](int64_t, auto load) {
    const F32x16 g = load(gate);
    return select_gt(g, zero_f32(), (g * g) * load(up), zero_f32());
  });
}

inline void silu_mul(const float* gate, const float* up, int64_t n, float* y) {
  map_row(n, y, [&](int64_t, auto load) {
    const F32x16 g = load(gate);
    return (g / (set_f32(1.0f) + exp(zero_f32() - g))) * load(up);
  });
}

inline void gelu_mul(const float* gate, const float* up, int64_t n, float* y) {
  map_row(n, y, [&](int64_t, auto load) {
    const F32x16 g = load(gate);
    const F32x16 t = ((g * g) * set_f32(kGeluCubic) + set_f32(kGeluLinear)) * g;
    return (g / (set_f32(1.0f) + exp(t))) * load(up);
  });
}

}  // namespace
}  // namespace bitinfer
