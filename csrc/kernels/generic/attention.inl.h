// Attention over one 64-position block of the KV cache; contracts in kernels/float_kernels.h.
//
// Lanes are keys while scores are made (K is stored with positions side by side) and dimensions
// while values are weighed. Up to kRows query rows share each load and widening of K and V: the
// heads of a GQA group, and neighbouring tokens of a prompt.
#pragma once
#include "kernels/generic/elementary.inl.h"

namespace bitinfer {
namespace {

constexpr int kRows = 4;
constexpr int64_t kLanes = 16;

template <KvType type>
constexpr int64_t kElementBytes = type == KvType::kF32   ? 4
                                  : type == KvType::kF16 ? 2
                                                         : 1;

// What is read next lies behind a block's keys and values: the next kv head's, at the same places.
// Keys are read with strides that no hardware prefetcher follows.
template <KvType type>
inline int64_t bytes_to_next_head(int64_t head_dim) {
  const int64_t rows = head_dim + (head_dim + kLanes - 1) / kLanes * kLanes;
  return kKvBlock * (rows * kElementBytes<type> + (type == KvType::kInt8 ? 8 : 0));
}

// 16 stored numbers from element i on. `scale` multiplies int8 codes and is unused otherwise.
template <KvType type>
inline F32x16 load_kv(const void* p, int64_t i, F32x16 scale) {
  if constexpr (type == KvType::kF32) return load_f32(static_cast<const float*>(p) + i);
  if constexpr (type == KvType::kF16) return load_f16(static_cast<const uint16_t*>(p) + i);
  if constexpr (type == KvType::kInt8)
    return to_f32(load_i8(static_cast<const int8_t*>(p) + i)) * scale;
}

// Dot products of R rows with 16 keys. fold16's 16 partial sums are the residues of d mod 16; two
// of them at a time, r and r + 8, are made in an order in which the tree above them folds on a
// stack of three levels.
template <KvType type, int R>
inline void dot_16_keys(const void* k, F32x16 k_scale, int64_t head_dim, const float* q,
                        int64_t q_stride, F32x16* dots) {
  constexpr int kResidues[8] = {0, 4, 2, 6, 1, 5, 3, 7};
  const char* next = static_cast<const char*>(k) + bytes_to_next_head<type>(head_dim);
  constexpr int64_t kDimBytes = kKvBlock * kElementBytes<type>;
  F32x16 levels[3][R];
  for (int t = 0; t < 8; ++t) {
    F32x16 low[R], high[R];
    for (int r = 0; r < R; ++r) low[r] = high[r] = zero_f32();
    for (int64_t d = kResidues[t]; d < head_dim; d += 16) {
      __builtin_prefetch(next + d * kDimBytes);
      const F32x16 keys = load_kv<type>(k, d * kKvBlock, k_scale);
      for (int r = 0; r < R; ++r) low[r] = low[r] + set_f32(q[r * q_stride + d]) * keys;
      if (d + 8 >= head_dim) break;
      __builtin_prefetch(next + (d + 8) * kDimBytes);
      const F32x16 keys_8 = load_kv<type>(k, (d + 8) * kKvBlock, k_scale);
      for (int r = 0; r < R; ++r) high[r] = high[r] + set_f32(q[r * q_stride + d + 8]) * keys_8;
    }
    for (int r = 0; r < R; ++r) low[r] = low[r] + high[r];
    int level = 0;
    for (; (t >> level) & 1; ++level) {
      for (int r = 0; r < R; ++r) low[r] = levels[level][r] + low[r];
    }
    F32x16* to = level < 3 ? levels[level] : dots;
    for (int r = 0; r < R; ++r) to[r] = low[r];
  }
}

// Scores of the first `keys` positions (a multiple of 16) into s (R, kKvBlock).
template <KvType type, int R>
inline void score_block(const KvBlock& block, int64_t head_dim, const float* q, int64_t q_stride,
                        int64_t keys, float scale, float (*s)[kKvBlock]) {
  for (int64_t j = 0; j < keys; j += kLanes) {
    F32x16 k_scale = zero_f32(), dots[R];
    if constexpr (type == KvType::kInt8) k_scale = load_f32(block.k_scale + j);
    const void* k = static_cast<const unsigned char*>(block.k) + j * kElementBytes<type>;
    dot_16_keys<type, R>(k, k_scale, head_dim, q, q_stride, dots);
    for (int r = 0; r < R; ++r) store_f32(s[r] + j, dots[r] * set_f32(scale));
  }
}

// Scores to exp(score - max), in place; zeros from count to the next multiple of 16.
inline void softmax_block(float* s, int64_t count, float* m, float* l) {
  const float minus_inf = -__builtin_inff();
  const int64_t keys = (count + kLanes - 1) / kLanes * kLanes;
  for (int64_t j = count; j < keys; ++j) s[j] = minus_inf;
  F32x16 most = set_f32(minus_inf);
  for (int64_t j = 0; j < keys; j += kLanes) most = max(load_f32(s + j), most);
  *m = fold_max(most);
  F32x16 sum = zero_f32();
  for (int64_t j = 0; j < keys; j += kLanes) {
    const F32x16 e = exp(load_f32(s + j) - set_f32(*m));
    store_f32(s + j, e);
    sum = sum + e;
  }
  *l = fold_add(sum);
}

// o[r][d..d + 16 V) = sum over j of e[r][j] · v_j, j in [0, counts[r]).
template <KvType type, int R, int V>
inline void weigh_values(const KvBlock& block, int64_t stride, int64_t ahead, int64_t d,
                         const float (*e)[kKvBlock], const int32_t* counts, float* o,
                         int64_t o_stride) {
  int64_t common = counts[0];
  for (int r = 1; r < R; ++r) common = counts[r] < common ? counts[r] : common;
  const auto value = [&](int64_t j, int v) {
    F32x16 scale = zero_f32();
    if constexpr (type == KvType::kInt8) scale = set_f32(block.v_scale[j]);
    return load_kv<type>(block.v, j * stride + d + v * kLanes, scale);
  };
  F32x16 sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sums[r][v] = zero_f32();
  }
  const char* next = static_cast<const char*>(block.v) + d * kElementBytes<type> + ahead;
  for (int64_t j = 0; j < common; ++j) {
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(next + (j * stride + v * kLanes) * kElementBytes<type>);
      const F32x16 values = value(j, v);
      for (int r = 0; r < R; ++r) sums[r][v] = sums[r][v] + set_f32(e[r][j]) * values;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int64_t j = common; j < counts[r]; ++j) {
      for (int v = 0; v < V; ++v) sums[r][v] = sums[r][v] + set_f32(e[r][j]) * value(j, v);
    }
    for (int v = 0; v < V; ++v) store_f32(o + r * o_stride + d + v * kLanes, sums[r][v]);
  }
}

template <KvType type, int R>
inline void attend_rows(const KvBlock& block, int64_t head_dim, const float* q, int64_t q_stride,
                        const int32_t* counts, float scale, const SoftmaxState& out, int64_t row) {
  alignas(64) float s[R][kKvBlock];
  const int64_t stride = (head_dim + kLanes - 1) / kLanes * kLanes;
  int64_t most = 0;
  for (int r = 0; r < R; ++r) most = counts[r] > most ? counts[r] : most;
  score_block<type, R>(block, head_dim, q, q_stride, (most + kLanes - 1) / kLanes * kLanes, scale,
                       s);
  for (int r = 0; r < R; ++r) softmax_block(s[r], counts[r], out.m + row + r, out.l + row + r);
  float* o = out.o + row * out.o_stride;
  const int64_t ahead = bytes_to_next_head<type>(head_dim);
  int64_t d = 0;
  for (; d + 4 * kLanes <= stride; d += 4 * kLanes) {
    weigh_values<type, R, 4>(block, stride, ahead, d, s, counts, o, out.o_stride);
  }
  for (; d < stride; d += kLanes)
    weigh_values<type, R, 1>(block, stride, ahead, d, s, counts, o, out.o_stride);
}

template <KvType type>
inline void attend_block(const KvBlock& block, int64_t head_dim, const float* q, int64_t q_stride,
                         const int32_t* counts, int64_t rows, float scale,
                         const SoftmaxState& out) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    attend_rows<type, kRows>(block, head_dim, q + r * q_stride, q_stride, counts + r, scale, out,
                             r);
  }
  for (; r + 2 <= rows; r += 2) {
    attend_rows<type, 2>(block, head_dim, q + r * q_stride, q_stride, counts + r, scale, out, r);
  }
  if (r < rows)
    attend_rows<type, 1>(block, head_dim, q + r * q_stride, q_stride, counts + r, scale, out, r);
}

// Stores x (n) as codes of `type` at p[0], p[stride], …; returns the scale of int8 codes.
template <KvType type>
inline float store_kv(const float* x, int64_t n, void* p, int64_t stride) {
  const float m = type == KvType::kInt8 ? floored_absmax(x, n) : 1.0f;
  const F32x16 inv = set_f32(127.0f / m), low = set_f32(-127.0f), high = set_f32(127.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i < kLanes ? n - i : kLanes;
    const F32x16 v = left == kLanes ? load_f32(x + i) : load_tail_f32(x + i, left);
    if constexpr (type == KvType::kF32) {
      float lanes[16];
      store_f32(lanes, v);
      for (int64_t j = 0; j < left; ++j) static_cast<float*>(p)[(i + j) * stride] = lanes[j];
    } else if constexpr (type == KvType::kF16) {
      uint16_t lanes[16];
      store_f16(lanes, v);
      for (int64_t j = 0; j < left; ++j) static_cast<uint16_t*>(p)[(i + j) * stride] = lanes[j];
    } else {
      int8_t lanes[16];
      store_i8(lanes, clamped_codes(v * inv, low, high));
      for (int64_t j = 0; j < left; ++j) static_cast<int8_t*>(p)[(i + j) * stride] = lanes[j];
    }
  }
  return m / 127.0f;
}

template <KvType type>
inline void append_kv(const KvBlock& block, int64_t pos, int64_t head_dim, const float* k,
                      const float* v) {
  constexpr int64_t kSize = kElementBytes<type>;
  const int64_t stride = (head_dim + kLanes - 1) / kLanes * kLanes;
  const float k_scale =
      store_kv<type>(k, head_dim, static_cast<unsigned char*>(block.k) + pos * kSize, kKvBlock);
  const float v_scale =
      store_kv<type>(v, head_dim, static_cast<unsigned char*>(block.v) + pos * stride * kSize, 1);
  if constexpr (type == KvType::kInt8) {
    block.k_scale[pos] = k_scale;
    block.v_scale[pos] = v_scale;
  }
}

inline void join_softmax(float* m, float* l, float* o, float p_m, float p_l, const float* p_o,
                         int64_t n) {
  const float most = *m > p_m ? *m : p_m;
  const float a = exp_f32_1(*m - most), c = exp_f32_1(p_m - most);
  *m = most;
  *l = *l * a + p_l * c;
  const F32x16 av = set_f32(a), cv = set_f32(c);
  for (int64_t i = 0; i < n; i += kLanes)
    store_f32(o + i, load_f32(o + i) * av + load_f32(p_o + i) * cv);
}

inline void divide(const float* o, float l, int64_t n, float* y) {
  const F32x16 lv = set_f32(l);
  map_row(n, y, [&](int64_t, auto load) { return load(o) / lv; });
}

}  // namespace
}  // namespace bitinfer
