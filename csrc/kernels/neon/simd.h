// The SIMD vocabulary (scalar/simd.h documents each word) for NEON: 16 lanes are four registers.
// Products and sums stay apart, but in add_exact_product: vmlaq_f32 and friends may fuse.
#pragma once
#define BITINFER_SIMD 1

#include <arm_neon.h>

#include <cstdint>

namespace bitinfer {
namespace {

struct F32x16 {
  float32x4_t a, b, c, d;
};
struct I32x16 {
  int32x4_t a, b, c, d;
};

struct I16x32 {
  int16x8_t a, b, c, d;
};
constexpr int kSumVectors = 1;

// ---- loads, stores ----
inline F32x16 set_f32(float x) {
  const float32x4_t q = vdupq_n_f32(x);
  return {q, q, q, q};
}
inline F32x16 zero_f32() { return set_f32(0.0f); }
inline I32x16 zero_i32() {
  const int32x4_t q = vdupq_n_s32(0);
  return {q, q, q, q};
}
inline F32x16 load_f32(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
inline float32x4_t load_4_f16(const uint16_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
inline F32x16 load_f16(const uint16_t* p) {
  return {load_4_f16(p), load_4_f16(p + 4), load_4_f16(p + 8), load_4_f16(p + 12)};
}
inline float32x4_t load_4_bf16(const uint16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
inline F32x16 load_bf16(const uint16_t* p) {
  return {load_4_bf16(p), load_4_bf16(p + 4), load_4_bf16(p + 8), load_4_bf16(p + 12)};
}
inline I32x16 load_i32(const int32_t* p) {
  return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)};
}
inline I32x16 load_i8(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
          vmovl_high_s16(high)};
}
inline I16x32 widen_i8(const int8_t* p) {
  const int8x16_t low = vld1q_s8(p), high = vld1q_s8(p + 16);
  return {vmovl_s8(vget_low_s8(low)), vmovl_high_s8(low), vmovl_s8(vget_low_s8(high)),
          vmovl_high_s8(high)};
}
inline I16x32 set_pair(const void* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  const int16x8_t q = vreinterpretq_s16_s32(vdupq_n_s32(pair));
  return {q, q, q, q};
}
inline void store_f32(float* p, F32x16 x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline void store_4_f16(uint16_t* p, float32x4_t x) {
  vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}
inline void store_f16(uint16_t* p, F32x16 x) {
  store_4_f16(p, x.a);
  store_4_f16(p + 4, x.b);
  store_4_f16(p + 8, x.c);
  store_4_f16(p + 12, x.d);
}
inline void store_i8(int8_t* p, I32x16 x) {
  const int16x8_t low = vmovn_high_s32(vmovn_s32(x.a), x.b);
  const int16x8_t high = vmovn_high_s32(vmovn_s32(x.c), x.d);
  vst1q_s8(p, vmovn_high_s16(vmovn_s16(low), high));
}
inline void store_i16(int16_t* p, I32x16 x) {
  vst1q_s16(p, vmovn_high_s32(vmovn_s32(x.a), x.b));
  vst1q_s16(p + 8, vmovn_high_s32(vmovn_s32(x.c), x.d));
}

// ---- arithmetic ----
inline F32x16 operator+(F32x16 x, F32x16 y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
inline F32x16 operator-(F32x16 x, F32x16 y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
inline F32x16 operator*(F32x16 x, F32x16 y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
inline F32x16 operator/(F32x16 x, F32x16 y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
inline float32x4_t select_gt(float32x4_t x, float32x4_t y, float32x4_t yes, float32x4_t no) {
  return vbslq_f32(vcgtq_f32(x, y), yes, no);
}
inline F32x16 add_exact_product(F32x16 sum, F32x16 x, F32x16 y) {
  return {vfmaq_f32(sum.a, x.a, y.a), vfmaq_f32(sum.b, x.b, y.b), vfmaq_f32(sum.c, x.c, y.c),
          vfmaq_f32(sum.d, x.d, y.d)};
}
inline F32x16 select_gt(F32x16 x, F32x16 y, F32x16 yes, F32x16 no) {
  return {select_gt(x.a, y.a, yes.a, no.a), select_gt(x.b, y.b, yes.b, no.b),
          select_gt(x.c, y.c, yes.c, no.c), select_gt(x.d, y.d, yes.d, no.d)};
}
// Not vmaxq and vminq, which propagate NaN and order the zeros.
inline F32x16 max(F32x16 x, F32x16 y) { return select_gt(x, y, x, y); }
inline F32x16 min(F32x16 x, F32x16 y) { return select_gt(y, x, x, y); }
inline F32x16 abs(F32x16 x) {
  return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)};
}
inline I32x16 operator+(I32x16 x, I32x16 y) {
  return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
}
inline int32x4_t add_pair_products(int32x4_t sum, int16x8_t x, int16x8_t y) {
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
  return vaddq_s32(sum, vpaddq_s32(low, high));
}
inline I32x16 add_pair_products(I32x16 sum, I16x32 x, I16x32 y) {
  return {add_pair_products(sum.a, x.a, y.a), add_pair_products(sum.b, x.b, y.b),
          add_pair_products(sum.c, x.c, y.c), add_pair_products(sum.d, x.d, y.d)};
}

// ---- conversions ----
inline F32x16 to_f32(I32x16 x) {
  return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)};
}
inline I32x16 round_i32(F32x16 x) {
  return {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)};
}
inline float32x4_t exp2_i32(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
inline F32x16 exp2_i32(I32x16 n) {
  return {exp2_i32(n.a), exp2_i32(n.b), exp2_i32(n.c), exp2_i32(n.d)};
}
inline void split_planes(int32x4_t x, int32x4_t* hi, int32x4_t* lo) {  // rounds towards zero
  const int32x4_t bias = vandq_s32(vshrq_n_s32(x, 31), vdupq_n_s32(127));
  *hi = vshrq_n_s32(vaddq_s32(x, bias), 7);
  *lo = vsubq_s32(x, vshlq_n_s32(*hi, 7));
}
inline void split_planes(I32x16 x, I32x16* hi, I32x16* lo) {
  split_planes(x.a, &hi->a, &lo->a);
  split_planes(x.b, &hi->b, &lo->b);
  split_planes(x.c, &hi->c, &lo->c);
  split_planes(x.d, &hi->d, &lo->d);
}
inline float32x4_t join_planes(int32x4_t hi,
                               int32x4_t lo) {  // |128 hi + lo| < 2^39: exact in double
  const int64x2_t first = vaddw_s32(vshll_n_s32(vget_low_s32(hi), 7), vget_low_s32(lo));
  const int64x2_t second = vaddw_high_s32(vshll_high_n_s32(hi, 7), lo);
  return vcvt_high_f32_f64(vcvt_f32_f64(vcvtq_f64_s64(first)), vcvtq_f64_s64(second));
}
inline F32x16 join_planes(I32x16 hi, I32x16 lo) {
  return {join_planes(hi.a, lo.a), join_planes(hi.b, lo.b), join_planes(hi.c, lo.c),
          join_planes(hi.d, lo.d)};
}

// ---- over the lanes ----
inline float fold_add(F32x16 x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
inline float fold_max(F32x16 x) {
  const float32x4_t even = select_gt(x.a, x.c, x.a, x.c), odd = select_gt(x.b, x.d, x.b, x.d);
  const float32x4_t four = select_gt(even, odd, even, odd);
  const float32x4_t swapped = vextq_f32(four, four, 2);
  const float32x4_t two = select_gt(four, swapped, four, swapped);
  const float first = vgetq_lane_f32(two, 0), second = vgetq_lane_f32(two, 1);
  return first > second ? first : second;
}
inline int32_t sum_i32(I32x16 x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d)));
}

}  // namespace
}  // namespace bitinfer
