// What the KV cache stores, and what is multiplied with it; contracts in kernels/float_kernels.h.
#pragma once
#include "kernels/generic/elementary.inl.h"
#include "kernels/generic/norm.inl.h"

namespace bitinfer {
namespace {

constexpr float kQueryLevels = 16383.0f;

// Numbers that lie side by side for one lane of a product, and their bytes.
template <KvType type>
constexpr int64_t kStepDepth = type == KvType::kInt8 ? 2 : 1;
template <KvType type>
constexpr int64_t kStepBytes = type == KvType::kF32 ? 4 : 2;

// x with 13 bits of significand, 0 below 2^-100: its product with a half is exact in fp32.
inline F32x16 shorten(F32x16 x) {
  const F32x16 wide = x * set_f32(2049.0f);
  return select_gt(set_f32(0x1p-100f), abs(x), zero_f32(), wide - (wide - x));
}

template <KvType type>
inline float prepare_query(float* q, int64_t head_dim, float scale) {
  if constexpr (type == KvType::kF32) return scale;
  if constexpr (type == KvType::kF16) {
    map_row(head_dim, q, [&](int64_t, auto load) { return shorten(load(q)); });
    return scale;
  }
  const float m = floored_absmax(q, head_dim);
  const F32x16 inv = set_f32(kQueryLevels / m), high = set_f32(kQueryLevels),
               low = set_f32(-kQueryLevels);
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int64_t left = head_dim - i < 16 ? head_dim - i : 16;
    const F32x16 v = left == 16 ? load_f32(q + i) : load_tail_f32(q + i, left);
    int16_t codes[16];
    store_i16(codes, clamped_codes(v * inv, low, high));
    __builtin_memcpy(reinterpret_cast<char*>(q) + 2 * i, codes, static_cast<size_t>(2 * left));
  }
  return m / kQueryLevels * scale;
}

// x (n) as stored, number i at to[at(i)]; returns the scale of int8 codes.
template <KvType type, typename At>
inline float store_kv(const float* x, int64_t n, void* to, At at) {
  const float m = type == KvType::kInt8 ? floored_absmax(x, n) : 1.0f;
  const F32x16 inv = set_f32(127.0f / m), low = set_f32(-127.0f), high = set_f32(127.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t left = n - i < 16 ? n - i : 16;
    const F32x16 v = left == 16 ? load_f32(x + i) : load_tail_f32(x + i, left);
    const auto scatter = [&](const auto* lanes, auto* p) {
      for (int64_t j = 0; j < left; ++j) p[at(i + j)] = lanes[j];
    };
    if constexpr (type == KvType::kF32) {
      float lanes[16];
      store_f32(lanes, v);
      scatter(lanes, static_cast<float*>(to));
    } else if constexpr (type == KvType::kF16) {
      uint16_t lanes[16];
      store_f16(lanes, v);
      scatter(lanes, static_cast<uint16_t*>(to));
    } else {
      int8_t lanes[16];
      store_i8(lanes, clamped_codes(v * inv, low, high));
      scatter(lanes, static_cast<int8_t*>(to));
    }
  }
  return m / 127.0f;
}

template <KvType type>
inline void append_kv(const KvBlock& block, int64_t pos, int64_t head_dim, const float* k,
                      const float* v) {
  constexpr int64_t kDepth = kStepDepth<type>;
  const int64_t stride = (head_dim + 15) / 16 * 16;
  const float k_scale = store_kv<type>(k, head_dim, block.k, [=](int64_t d) {
    return (d / kDepth * kKvBlock + pos) * kDepth + d % kDepth;
  });
  const float v_scale = store_kv<type>(v, head_dim, block.v, [=](int64_t d) {
    return (pos / kDepth * stride + d) * kDepth + pos % kDepth;
  });
  if constexpr (type == KvType::kInt8) {
    block.k_scale[pos] = k_scale;
    block.v_scale[pos] = v_scale;
  }
}

}  // namespace
}  // namespace bitinfer
