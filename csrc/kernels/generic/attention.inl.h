// Attention over one 64-position block of the KV cache; contracts in kernels/float_kernels.h.
//
// Scores and weighted values are one product, rows of numbers times a matrix of the cache whose
// columns are lanes: keys while scores are made, dimensions while values are weighed. Up to kRows
// query rows share each load and widening: the heads of a GQA group, and neighbouring tokens of a
// prompt.
#pragma once
#include "kernels/generic/elementary.inl.h"
#include "kernels/generic/kv_append.inl.h"

namespace bitinfer {
namespace {

constexpr int kRows = 4;
constexpr int64_t kLanes = 16;
template <KvType type>
constexpr int kVectorBytes = static_cast<int>(kLanes * kStepBytes<type>);  // of a step of a vector

// sum over i of x[i] · m[i][lane]. A step is one i, of int8 two; x takes 4 bytes a step.
template <KvType type>
struct Products {
  using Sum = F32x16;
  using Lanes = F32x16;
  static Sum zero() { return zero_f32(); }
  static Lanes load(const void* m) {
    if constexpr (type == KvType::kF32) return load_f32(static_cast<const float*>(m));
    if constexpr (type == KvType::kF16) return load_f16(static_cast<const uint16_t*>(m));
  }
  static Lanes set(const void* x) { return set_f32(*static_cast<const float*>(x)); }
  static Sum add(Sum sum, Lanes x, Lanes m) {
    if constexpr (type == KvType::kF32) return sum + x * m;
    if constexpr (type == KvType::kF16) return add_exact_product(sum, x, m);
  }
};
template <>
struct Products<KvType::kInt8> {
  using Sum = I32x16;
  using Lanes = I16x32;
  static Sum zero() { return zero_i32(); }
  static Lanes load(const void* m) { return widen_i8(static_cast<const int8_t*>(m)); }
  static Lanes set(const void* x) { return set_pair(x); }
  static Sum add(Sum sum, Lanes x, Lanes m) { return add_pair_products(sum, x, m); }
};

// Asks for the block that comes next, a part of it in every step of scores, exponentials and
// values, so that the memory rests in none of them: in one stream, as streams a multiple of 4 KB
// apart would push each other out of the cache's sets.
struct Prefetch {
  static constexpr int kLine = 64;
  const char* next;
  int due = 0;  // bytes of a line that were not asked for yet

  void lines(int64_t count) {
    for (; count > 0; --count, next += kLine) __builtin_prefetch(next);
  }
  template <int bytes>
  void step() {
    if constexpr (bytes % kLine == 0) return lines(bytes / kLine);
    for (due += bytes; due >= kLine; due -= kLine) lines(1);
  }
};

// sums[r][v] of rows x, x_stride bytes apart, and lanes [16 v, 16 v + 16) of m, rows m_stride bytes
// apart; asks for `ahead` bytes a step.
template <KvType type, int R, int V, int ahead>
inline void multiply(const char* m, int64_t m_stride, const char* x, int64_t x_stride,
                     int64_t steps, Prefetch* prefetch, typename Products<type>::Sum (*sums)[V]) {
  using P = Products<type>;
  typename P::Sum sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sum[r][v] = P::zero();
  }
  Prefetch ask = *prefetch;
  for (int64_t i = 0; i < steps; ++i, m += m_stride, x += 4) {
    ask.template step<ahead>();
    typename P::Lanes lanes[V];
    for (int v = 0; v < V; ++v) lanes[v] = P::load(m + v * kVectorBytes<type>);
    for (int r = 0; r < R; ++r) {
      const typename P::Lanes factor = P::set(x + r * x_stride);
      for (int v = 0; v < V; ++v) sum[r][v] = P::add(sum[r][v], factor, lanes[v]);
    }
  }
  *prefetch = ask;
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sums[r][v] = sum[r][v];
  }
}

// What R query rows that see the same positions of a block share.
template <KvType type, int R>
struct RowGroup {
  const KvBlock& block;
  int64_t head_dim;
  const float* q;
  int64_t q_stride;
  const float* factors;
  Prefetch* prefetch;

  int64_t stride() const { return (head_dim + kLanes - 1) / kLanes * kLanes; }

  // Scores of positions [first, first + 16 V) into s (R, kKvBlock).
  template <int V>
  void score(int64_t first, float (*s)[kKvBlock]) const {
    typename Products<type>::Sum sums[R][V];
    multiply<type, R, V, V * kVectorBytes<type> * 3 / 4>(
        static_cast<const char*>(block.k) + first * kStepBytes<type>, kKvBlock * kStepBytes<type>,
        reinterpret_cast<const char*>(q), q_stride * 4, head_dim / kStepDepth<type>, prefetch,
        sums);
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) {
        const int64_t at = first + v * kLanes;
        if constexpr (type == KvType::kInt8) {
          const F32x16 dots = to_f32(sums[r][v]) * load_f32(block.k_scale + at);
          store_f32(s[r] + at, dots * set_f32(factors[r]));
        } else {
          store_f32(s[r] + at, sums[r][v] * set_f32(factors[r]));
        }
      }
    }
  }

  // o[r][d..d + 16 V) from rows of weights, kKvBlock words apart, each scaled back by `scales`.
  template <int V>
  void weigh(int64_t d, const void* weights, const float* scales, int64_t count, float* o,
             int64_t o_stride) const {
    typename Products<type>::Sum sums[R][V];
    multiply<type, R, V, V * kVectorBytes<type> * 3 / 4>(
        static_cast<const char*>(block.v) + d * kStepBytes<type>, stride() * kStepBytes<type>,
        static_cast<const char*>(weights), kKvBlock * 4,
        (count + kStepDepth<type> - 1) / kStepDepth<type>, prefetch, sums);
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) {
        float* to = o + r * o_stride + d + v * kLanes;
        if constexpr (type == KvType::kInt8) {
          store_f32(to, to_f32(sums[r][v]) * set_f32(scales[r]));
        } else {
          store_f32(to, sums[r][v]);
        }
      }
    }
  }
};

// R rows of a block, of scores at first; rows side by side, as each waits for its own sums.
template <int R>
using BlockRows = float (&)[R][kKvBlock];

// Scores to exp(score - max), in place; zeros below first, and from count to the next multiple
// of 16. Asks for `ahead` lines a step. m, l: (R).
template <int R>
inline void softmax_block(BlockRows<R> s, int64_t first, int64_t count, Prefetch* prefetch,
                          int64_t ahead, float* m, float* l) {
  const float minus_inf = -__builtin_inff();
  const int64_t keys = (count + kLanes - 1) / kLanes * kLanes;
  F32x16 most[R], sum[R];
  for (int r = 0; r < R; ++r) {
    for (int64_t j = 0; j < first; ++j) s[r][j] = minus_inf;
    for (int64_t j = count; j < keys; ++j) s[r][j] = minus_inf;
    most[r] = set_f32(minus_inf);
    sum[r] = zero_f32();
  }
  for (int64_t j = 0; j < keys; j += kLanes) {
    for (int r = 0; r < R; ++r) most[r] = max(load_f32(s[r] + j), most[r]);
  }
  for (int r = 0; r < R; ++r) m[r] = fold_max(most[r]);
  for (int r = 0; r < R; ++r) most[r] = set_f32(m[r]);
  for (int64_t j = 0; j < keys; j += kLanes) {
    for (int r = 0; r < R; ++r) {
      prefetch->lines(ahead);
      const F32x16 e = exp(load_f32(s[r] + j) - most[r]);
      store_f32(s[r] + j, e);
      sum[r] = sum[r] + e;
    }
  }
  for (int r = 0; r < R; ++r) l[r] = fold_add(sum[r]);
}

// The weights of values: f16's are shortened in place; int8's become codes of e_j · v_scale_j, and
// scales what scales them back.
template <KvType type, int R>
inline void prepare_weights(const KvBlock& block, int64_t count, BlockRows<R> e,
                            int16_t (&codes)[R][2 * kKvBlock], float (&scales)[R]) {
  if constexpr (type == KvType::kF16) {
    for (int64_t j = 0; j < count; j += kLanes) {
      for (int r = 0; r < R; ++r) store_f32(e[r] + j, shorten(load_f32(e[r] + j)));
    }
  }
  if constexpr (type == KvType::kInt8) {
    F32x16 most[R], inv[R];
    for (int r = 0; r < R; ++r) most[r] = zero_f32();
    for (int64_t j = 0; j < count; j += kLanes) {
      const F32x16 scale = load_f32(block.v_scale + j);
      for (int r = 0; r < R; ++r) {
        const F32x16 w = load_f32(e[r] + j) * scale;
        store_f32(e[r] + j, w);
        most[r] = max(w, most[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      const float m = fold_max(most[r]);
      inv[r] = set_f32(kQueryLevels / m);
      scales[r] = m / kQueryLevels;
    }
    for (int64_t j = 0; j < count; j += kLanes) {
      for (int r = 0; r < R; ++r) store_i16(codes[r] + j, round_i32(load_f32(e[r] + j) * inv[r]));
    }
  }
}

template <KvType type, int R>
inline void attend_rows(const RowGroup<type, R>& group, const QueryRows& rows, int64_t row,
                        const SoftmaxState& out) {
  const int64_t count = rows.seen[row];
  constexpr int64_t kWide = kSumVectors * kLanes;
  alignas(64) float e[R][kKvBlock];
  alignas(64) int16_t codes[R][2 * kKvBlock];
  float scales[R];
  // The quarter of the bytes that scores and values do not ask for, dealt to all vectors of them.
  const int64_t ahead = group.head_dim * kStepBytes<type> / kStepDepth<type> / (8 * R);
  int64_t j = 0;
  for (; j + kWide <= kKvBlock && j < count - kWide + kLanes; j += kWide)
    group.template score<kSumVectors>(j, e);
  for (; j < count; j += kLanes) group.template score<1>(j, e);
  softmax_block<R>(e, rows.first[row], count, group.prefetch, ahead, out.m + row, out.l + row);
  prepare_weights<type, R>(group.block, count, e, codes, scales);
  const void* weights = type == KvType::kInt8 ? static_cast<const void*>(codes) : e;
  float* o = out.o + row * out.o_stride;
  int64_t d = 0;
  for (; d + kWide <= group.stride(); d += kWide)
    group.template weigh<kSumVectors>(d, weights, scales, count, o, out.o_stride);
  for (; d < group.head_dim; d += kLanes)
    group.template weigh<1>(d, weights, scales, count, o, out.o_stride);
}

template <KvType type>
inline void attend_block(const KvBlock& block, const void* next, int64_t head_dim,
                         const QueryRows& rows, const SoftmaxState& out) {
  for (int64_t r = 0; r < rows.count;) {
    int64_t same = 1;  // rows that see the same positions
    while (same < kRows && r + same < rows.count && rows.seen[r + same] == rows.seen[r] &&
           rows.first[r + same] == rows.first[r])
      ++same;
    Prefetch prefetch{static_cast<const char*>(r ? block.k : next)};
    const float *q = rows.q + r * rows.q_stride, *factors = rows.factors + r;
    if (same == 4) {
      attend_rows<type, 4>({block, head_dim, q, rows.q_stride, factors, &prefetch}, rows, r, out);
    } else if (same >= 2) {
      attend_rows<type, 2>({block, head_dim, q, rows.q_stride, factors, &prefetch}, rows, r, out);
    } else {
      attend_rows<type, 1>({block, head_dim, q, rows.q_stride, factors, &prefetch}, rows, r, out);
    }
    r += same == 3 ? 2 : same;
  }
}

inline void join_softmax(const SoftmaxState& s, const SoftmaxState& p, int64_t rows) {
  for (int64_t first = 0; first < rows; first += kLanes) {
    const int64_t n = rows - first < kLanes ? rows - first : kLanes;
    const SoftmaxState to = s.from(first), part = p.from(first);
    alignas(64) float a[kLanes] = {}, c[kLanes] = {};
    for (int64_t r = 0; r < n; ++r) {
      const float most = to.m[r] > part.m[r] ? to.m[r] : part.m[r];
      a[r] = to.m[r] - most;
      c[r] = part.m[r] - most;
      to.m[r] = most;
    }
    store_f32(a, exp(load_f32(a)));
    store_f32(c, exp(load_f32(c)));
    for (int64_t r = 0; r < n; ++r) {
      to.l[r] = to.l[r] * a[r] + part.l[r] * c[r];
      const F32x16 av = set_f32(a[r]), cv = set_f32(c[r]);
      float* o = to.o + r * to.o_stride;
      const float* p_o = part.o + r * part.o_stride;
      for (int64_t i = 0; i < to.o_stride; i += kLanes)
        store_f32(o + i, load_f32(o + i) * av + load_f32(p_o + i) * cv);
    }
  }
}

inline void divide(const float* o, float l, int64_t n, float* y) {
  const F32x16 lv = set_f32(l);
  map_row(n, y, [&](int64_t, auto load) { return load(o) / lv; });
}

}  // namespace
}  // namespace bitinfer
