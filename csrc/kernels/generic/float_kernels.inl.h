// All float kernels of a row: kernels.cpp includes its simd.h, then this, and takes
// make_float_kernels().
#pragma once
#include "kernels/generic/elementary.inl.h"
// clang-format off: attention uses norm's quantization
#include "kernels/generic/norm.inl.h"
#include "kernels/generic/epilogue.inl.h"
#include "kernels/generic/attention.inl.h"
// clang-format on

namespace bitinfer {
namespace {

template <FloatType type>
inline void widen_as(const void* src, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_f32(y + i, load_float<type>(src, i));
  if (i < n) store_tail_f32(y + i, load_float_tail<type>(src, i, n - i), n - i);
}

inline void widen(const void* src, FloatType type, int64_t n, float* y) {
  if (type == FloatType::kF32) return widen_as<FloatType::kF32>(src, n, y);
  if (type == FloatType::kF16) return widen_as<FloatType::kF16>(src, n, y);
  return widen_as<FloatType::kBF16>(src, n, y);
}

// R rows at once: their sums are independent chains of additions, and far-apart streams.
template <FloatType type, int R>
inline void dot_some_rows(const unsigned char* w, int64_t row_bytes, int64_t k, const float* x,
                          float* y) {
  F32x16 sums[R];
  for (int r = 0; r < R; ++r) sums[r] = zero_f32();
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    const F32x16 v = load_f32(x + i);
    for (int r = 0; r < R; ++r) sums[r] = sums[r] + load_float<type>(w + r * row_bytes, i) * v;
  }
  if (i < k) {
    const F32x16 v = load_tail_f32(x + i, k - i);
    for (int r = 0; r < R; ++r)
      sums[r] = sums[r] + load_float_tail<type>(w + r * row_bytes, i, k - i) * v;
  }
  for (int r = 0; r < R; ++r) y[r] = fold_add(sums[r]);
}

template <FloatType type>
inline void dot_rows_as(const void* w, int64_t n, int64_t k, const float* x, float* y) {
  const int64_t row_bytes = k * (type == FloatType::kF32 ? 4 : 2);
  const unsigned char* row = static_cast<const unsigned char*>(w);
  int64_t r = 0;
  for (; r + 8 <= n; r += 8, row += 8 * row_bytes)
    dot_some_rows<type, 8>(row, row_bytes, k, x, y + r);
  for (; r < n; ++r, row += row_bytes) dot_some_rows<type, 1>(row, row_bytes, k, x, y + r);
}

inline void dot_rows(const void* w, FloatType type, int64_t n, int64_t k, const float* x,
                     float* y) {
  if (type == FloatType::kF32) return dot_rows_as<FloatType::kF32>(w, n, k, x, y);
  if (type == FloatType::kF16) return dot_rows_as<FloatType::kF16>(w, n, k, x, y);
  return dot_rows_as<FloatType::kBF16>(w, n, k, x, y);
}

inline void rope(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim) {
    for (int64_t i = 0; i < half; i += 16) {
      const int64_t n = half - i < 16 ? half - i : 16;
      const auto load = [n](const float* p) { return n == 16 ? load_f32(p) : load_tail_f32(p, n); };
      const F32x16 a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i);
      const F32x16 low = a * c - b * s, high = b * c + a * s;
      if (n == 16) {
        store_f32(x + i, low);
        store_f32(x + half + i, high);
      } else {
        store_tail_f32(x + i, low, n);
        store_tail_f32(x + half + i, high, n);
      }
    }
  }
}

inline void exp_row(const float* x, int64_t n, float* y) {
  map_row(n, y, [&](int64_t, auto load) { return exp(load(x)); });
}

inline void block_max(const float* x, int64_t n, float* maxima) {
  const F32x16 infinity = set_f32(__builtin_inff());
  const F32x16 lowest = set_f32(-__builtin_inff());
  for (int64_t start = 0; start < n; start += kMaxBlock) {
    const int64_t end = n - start < kMaxBlock ? n : start + kMaxBlock;
    F32x16 most = lowest;
    const auto take = [&](F32x16 v) { most = max(select_gt(infinity, v, v, infinity), most); };
    int64_t i = start;
    for (; i + 16 <= end; i += 16) take(load_f32(x + i));
    for (; i < end; ++i) take(set_f32(x[i]));
    *maxima++ = fold_max(most);
  }
}

inline FloatKernels make_float_kernels() {
  FloatKernels f{};
  f.widen = widen;
  f.rms_norm = rms_norm;
  f.layer_norm = layer_norm;
  f.quantize_i8 = quantize_i8;
  f.quantize_planes = quantize_planes;
  f.scale = scale;
  f.scale_add = scale_add;
  f.scale_head = scale_head;
  f.scale_rows_add = scale_rows_add;
  f.relu2_mul = relu2_mul;
  f.silu_mul = silu_mul;
  f.gelu_mul = gelu_mul;
  f.dot_rows = dot_rows;
  f.rope = rope;
  f.append_kv[0] = append_kv<KvType::kF32>;
  f.append_kv[1] = append_kv<KvType::kF16>;
  f.append_kv[2] = append_kv<KvType::kInt8>;
  f.prepare_query[0] = prepare_query<KvType::kF32>;
  f.attend_block[0] = attend_block<KvType::kF32>;
  f.prepare_query[1] = prepare_query<KvType::kF16>;
  f.attend_block[1] = attend_block<KvType::kF16>;
  f.prepare_query[2] = prepare_query<KvType::kInt8>;
  f.attend_block[2] = attend_block<KvType::kInt8>;
  f.join_softmax = join_softmax;
  f.divide = divide;
  f.exp = exp_row;
  f.block_max = block_max;
  return f;
}

}  // namespace
}  // namespace bitinfer
