// Loads of a row's tail and exp, on the SIMD vocabulary.
#pragma once
#ifndef BITINFER_SIMD
#include "kernels/scalar/simd.h"
#endif

#include <cstddef>

#include "kernels/float_kernels.h"

namespace bitinfer {
namespace {

// The n < 16 elements of a row's end; missing lanes are +0.
inline F32x16 load_tail_f32(const float* p, int64_t n) {
  float lanes[16] = {};
  __builtin_memcpy(lanes, p, static_cast<size_t>(n) * sizeof(float));
  return load_f32(lanes);
}
inline void store_tail_f32(float* p, F32x16 x, int64_t n) {
  float lanes[16];
  store_f32(lanes, x);
  __builtin_memcpy(p, lanes, static_cast<size_t>(n) * sizeof(float));
}

template <FloatType type>
inline F32x16 load_float(const void* p, int64_t i) {
  if constexpr (type == FloatType::kF32) return load_f32(static_cast<const float*>(p) + i);
  if constexpr (type == FloatType::kF16) return load_f16(static_cast<const uint16_t*>(p) + i);
  if constexpr (type == FloatType::kBF16) return load_bf16(static_cast<const uint16_t*>(p) + i);
}
template <FloatType type>
inline F32x16 load_float_tail(const void* p, int64_t i, int64_t n) {
  constexpr size_t kSize = type == FloatType::kF32 ? 4 : 2;
  alignas(64) unsigned char lanes[16 * kSize] = {};
  __builtin_memcpy(lanes, static_cast<const unsigned char*>(p) + static_cast<size_t>(i) * kSize,
                   static_cast<size_t>(n) * kSize);
  return load_float<type>(lanes, 0);
}

// y[i] = fn(i, load) for i in steps of 16, where load(row) is row[i..i+16) with +0 beyond n.
template <typename Fn>
inline void map_row(int64_t n, float* y, Fn fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    store_f32(y + i, fn(i, [i](const float* row) { return load_f32(row + i); }));
  }
  if (i < n) {
    const int64_t left = n - i;
    const F32x16 tail = fn(i, [i, left](const float* row) { return load_tail_f32(row + i, left); });
    store_tail_f32(y + i, tail, left);
  }
}

// The contract in float_kernels.h. c2..c6 are a minimax fit of exp on |r| <= ln(2) / 2.
inline F32x16 exp(F32x16 x) {
  const F32x16 one = set_f32(1.0f);
  const I32x16 n =
      round_i32(max(min(x * set_f32(0x1.715476p+0f), set_f32(127.0f)), set_f32(-126.0f)));
  const F32x16 nf = to_f32(n);
  const F32x16 r = (x - nf * set_f32(0.693359375f)) - nf * set_f32(-0x1.bd0106p-13f);
  F32x16 p = set_f32(0x1.6a23c8p-10f);
  p = p * r + set_f32(0x1.123a20p-7f);
  p = p * r + set_f32(0x1.5558f4p-5f);
  p = p * r + set_f32(0x1.555492p-3f);
  p = p * r + set_f32(0x1.fffffcp-2f);
  p = p * r + one;
  p = p * r + one;
  p = p * exp2_i32(n);
  p = select_gt(x, set_f32(88.375f), set_f32(__builtin_inff()), p);
  return select_gt(set_f32(-87.3125f), x, zero_f32(), p);
}

}  // namespace
}  // namespace bitinfer
