// Contract of the float kernels of one ISA row: the same bits on every row, lane width and thread
// count.
//
// All arithmetic is fp32, each operation rounded once, in the order written here; a multiply-add is
// fused only where the product is exact. A sum over K has 16 lanes: lane j starts at +0 and takes
// elements j, j + 16, … in order; then l[i] + l[i + 8], + 4, + 2, + 1 ("fold16"). max(a, b) is a >
// b ? a : b. rint rounds half to even. Rows are float32, contiguous, any alignment; nothing beyond
// the stated length is read or written.
//
// exp(x), used by silu and softmax (coefficients in generic/elementary.inl.h, relative error <
// 1e-7):
//   x < -87.3125: 0, x > 88.375: +inf; else n = rint(x · 1/ln 2), r = (x - n · 0.693359375) - n ·
//   (ln 2 - 0.693359375), p = c6; p = p · r + c5 … + c0 (Horner, c1 = c0 = 1); p · 2^n
#pragma once

#include <cstdint>

#include "util/float_type.h"

namespace bitinfer {

enum class KvType : int { kF32 = 0, kF16 = 1, kInt8 = 2 };
constexpr int kNumKvTypes = 3;

constexpr int64_t kKvBlock = 64;       // positions of a KV block
constexpr int64_t kMaxHeadDim = 1024;  // int32 holds 1024 products of 14 and 7 bits
constexpr int64_t kMaxBlock = 64;      // values that a maximum of block_max stands for
constexpr int64_t kMaxQueryRows = 64;  // query rows of one attend_block call

constexpr float kGeluLinear = -0x1.988454p+0f;  // -2 · √(2/π)
constexpr float kGeluCubic = -0x1.2444f2p-4f;   // -2 · √(2/π) · 0.044715

// Keys and values of one kv head for kKvBlock positions, as stored; stride = round_up(head_dim,
// 16), padding zero. f32, f16: k (head_dim, kKvBlock), v (kKvBlock, stride). int8, in pairs: k
// (head_dim / 2, kKvBlock, 2), v (kKvBlock / 2, stride, 2), value = float(code) · scale; scales
// (kKvBlock) each.
struct KvBlock {
  void* k;
  void* v;
  float* k_scale;
  float* v_scale;
};

// Online-softmax states of query rows: m = largest score, l = sum of exp, o = weighted values.
struct SoftmaxState {
  float* m;  // (rows)
  float* l;  // (rows)
  float* o;  // (rows, o_stride), o_stride a multiple of 16, >= head_dim
  int64_t o_stride;

  SoftmaxState from(int64_t row) const { return {m + row, l + row, o + row * o_stride, o_stride}; }
};

// Makes of q (head_dim), in place, what attend_block multiplies, and returns its factor.
// f32: q, factor = scale. f16: short(q), factor = scale. int8: m = max(absmax, 1e-5), int16 codes
// clamp(rint(q · (16383 / m)), ±16383) from q's first byte on, factor = (m / 16383) · scale.
// short(x): 13 bits of significand: 0 where |x| < 2^-100, else w - (w - x) with w = x · 2049. Its
// product with a half is exact in fp32.
using PrepareQueryFn = float (*)(float* q, int64_t head_dim, float scale);

// Query rows of one kv head, prepared.
struct QueryRows {
  const float* q;  // (count, q_stride)
  int64_t q_stride;
  const float* factors;  // (count)
  const int32_t* first;  // (count): row r sees positions [first[r], seen[r]) of the block,
  const int32_t* seen;   // (count): 0 <= first[r] < seen[r] <= kKvBlock
  int64_t count;         // 1..kMaxQueryRows
};

// For each row: s_j = dot(q, k_j) · factor, -inf where it does not see j; m = max_j s_j;
// e_j = exp(s_j - m); l = sum_j e_j (fold16); o[d] = sum_j w_j · v_j[d]. Sums over d and j ascend
// from +0.
// f32: w = e. f16: w = short(e). int8: all sums are integers; s_j = (float(dot) · k_scale_j) ·
// factor, t = max_j (e_j · v_scale_j), w_j = rint((e_j · v_scale_j) · (16383 / t)), o[d] =
// float(sum) · (t / 16383).
// next: what is attended to next, for prefetch (k of a block).
using AttendBlockFn = void (*)(const KvBlock& block, const void* next, int64_t head_dim,
                               const QueryRows& rows, const SoftmaxState& out);

// Writes position `pos` (0..kKvBlock-1) of a block from fp32 k, v (head_dim). f16: round half to
// even. int8: m = max(absmax, 1e-5), code = clamp(rint(x · (127 / m)), ±127), scale = m / 127.
using AppendKvFn = void (*)(const KvBlock& block, int64_t pos, int64_t head_dim, const float* k,
                            const float* v);

struct FloatKernels {
  // y = float(src), n elements.
  void (*widen)(const void* src, FloatType type, int64_t n, float* y);

  // inv = 1 / sqrt(sum(x · x) / float(k) + eps); y = (x · inv) · w
  void (*rms_norm)(const float* x, const float* w, int64_t k, float eps, float* y);

  // mean = sum(x) / float(k); d = x - mean; inv = 1 / sqrt(sum(d · d) / float(k) + eps);
  // y = d · inv
  void (*layer_norm)(const float* x, int64_t k, float eps, float* y);

  // m = max(absmax, 1e-5); codes = clamp(rint(x · (levels / m)), -128, 127), zero in [k,
  // codes_bytes); *sum = sum of codes; returns act_scale = m / levels. levels: 127 or 128;
  // codes_bytes: a multiple of 16, >= k.
  float (*quantize_i8)(const float* x, int64_t k, int64_t codes_bytes, float levels, int8_t* codes,
                       int32_t* sum);

  // 15-bit activations in two planes: c = clamp(rint(x · (16383 / m)), ±16383) = 128 hi + lo, both
  // of c's sign; sums: of hi and of lo; returns m / 16383.
  float (*quantize_planes)(const float* x, int64_t k, int64_t codes_bytes, int8_t* hi, int8_t* lo,
                           int32_t sums[2]);

  // y = (float(acc) · act_scale) · weight_scale [+ bias]; bias may be null.
  void (*scale)(const int32_t* acc, int64_t n, float act_scale, float weight_scale,
                const float* bias, float* y);
  // x = x + y, y as above.
  void (*scale_add)(const int32_t* acc, int64_t n, float act_scale, float weight_scale,
                    const float* bias, float* x);
  // logit = (float(128 hi + lo) · act_scale) · row_scale, the integer sum exact, converted with one
  // rounding.
  void (*scale_head)(const int32_t* hi, const int32_t* lo, int64_t n, float act_scale,
                     const float* row_scale, float* logits);
  // y = y + (float(acc) · act_scale) · row_scale[r], row_scale of `type` widened; acc = hi, or 128
  // hi
  // + lo, which int32 holds, where lo is not null.
  void (*scale_rows_add)(const int32_t* hi, const int32_t* lo, int64_t n, float act_scale,
                         const void* row_scale, FloatType type, float* y);

  // y = gate > 0 ? (gate · gate) · up : +0, so that an idle neuron's `up` need not be known
  void (*relu2_mul)(const float* gate, const float* up, int64_t n, float* y);
  // y = (gate / (1 + exp(-gate))) · up; -gate is 0 - gate
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);
  // GELU by tanh, 0.5 · g · (1 + tanh(√(2/π) · (g + 0.044715 · g³))), as g / (1 + exp(t)):
  // t = ((g · g) · kGeluCubic + kGeluLinear) · g; y = (g / (1 + exp(t))) · up
  void (*gelu_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y[r] = dot(w[r], x), fold16; w: (n, k) of `type`, rows contiguous.
  void (*dot_rows)(const void* w, FloatType type, int64_t n, int64_t k, const float* x, float* y);

  // In place, each head of x (heads, head_dim), h = head_dim / 2:
  // x[i], x[i + h] = x[i] · cos[i] - x[i + h] · sin[i], x[i + h] · cos[i] + x[i] · sin[i]
  void (*rope)(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin);

  AppendKvFn append_kv[kNumKvTypes];
  PrepareQueryFn prepare_query[kNumKvTypes];
  AttendBlockFn attend_block[kNumKvTypes];

  // Joins partial results p of `rows` rows into their states s, all o_stride elements of o:
  // m' = max(m, p.m), a = exp(m - m'), c = exp(p.m - m'); l = l · a + p.l · c; o = o · a + p.o · c
  void (*join_softmax)(const SoftmaxState& s, const SoftmaxState& p, int64_t rows);
  // y = o / l, n elements
  void (*divide)(const float* o, float l, int64_t n, float* y);

  void (*exp)(const float* x, int64_t n, float* y);

  // maxima[i] = the largest of x[i · kMaxBlock ...], kMaxBlock values or what is left of n; NaN
  // counts as +inf. n >= 1
  void (*block_max)(const float* x, int64_t n, float* maxima);
};

}  // namespace bitinfer
