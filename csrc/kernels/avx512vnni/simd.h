// The SIMD vocabulary (scalar/simd.h documents each word) for AVX-512 F + BW + DQ + VNNI: 16 lanes
// are one register.
#pragma once
#define BITINFER_SIMD 1

#include <immintrin.h>

#include <cstdint>

namespace bitinfer {
namespace {

struct F32x16 {
  __m512 a;
};
struct I32x16 {
  __m512i a;
};

inline __m256i load_256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

struct I16x32 {
  __m512i a;
};
constexpr int kSumVectors = 4;

// ---- loads, stores ----
inline F32x16 zero_f32() { return {_mm512_setzero_ps()}; }
inline I32x16 zero_i32() { return {_mm512_setzero_si512()}; }
inline F32x16 set_f32(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 load_f32(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(load_256(p))}; }
inline F32x16 load_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16))};
}
inline I32x16 load_i32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I32x16 load_i8(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I16x32 widen_i8(const int8_t* p) { return {_mm512_cvtepi8_epi16(load_256(p))}; }
inline I16x32 set_pair(const void* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return {_mm512_set1_epi32(pair)};
}
inline void store_f32(float* p, F32x16 x) { _mm512_storeu_ps(p, x.a); }
inline void store_f16(uint16_t* p, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store_i8(int8_t* p, I32x16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x.a));
}
inline void store_i16(int16_t* p, I32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x.a));
}

// ---- arithmetic ----
inline F32x16 operator+(F32x16 x, F32x16 y) { return {_mm512_add_ps(x.a, y.a)}; }
inline F32x16 operator-(F32x16 x, F32x16 y) { return {_mm512_sub_ps(x.a, y.a)}; }
inline F32x16 operator*(F32x16 x, F32x16 y) { return {_mm512_mul_ps(x.a, y.a)}; }
inline F32x16 operator/(F32x16 x, F32x16 y) { return {_mm512_div_ps(x.a, y.a)}; }
inline F32x16 add_exact_product(F32x16 sum, F32x16 x, F32x16 y) {
  return {_mm512_fmadd_ps(x.a, y.a, sum.a)};
}
inline F32x16 select_gt(F32x16 x, F32x16 y, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.a, y.a, _CMP_GT_OQ), no.a, yes.a)};
}
inline F32x16 max(F32x16 x, F32x16 y) { return {_mm512_max_ps(x.a, y.a)}; }
inline F32x16 min(F32x16 x, F32x16 y) { return {_mm512_min_ps(x.a, y.a)}; }
inline F32x16 abs(F32x16 x) { return {_mm512_abs_ps(x.a)}; }
inline I32x16 operator+(I32x16 x, I32x16 y) { return {_mm512_add_epi32(x.a, y.a)}; }
inline I32x16 add_pair_products(I32x16 sum, I16x32 x, I16x32 y) {
  sum.a = _mm512_dpwssd_epi32(sum.a, x.a, y.a);
  __asm__("" : "+v"(sum.a));  // GCC 12 copies each sum before and after otherwise
  return sum;
}

// ---- conversions ----
inline F32x16 to_f32(I32x16 x) { return {_mm512_cvtepi32_ps(x.a)}; }
inline I32x16 round_i32(F32x16 x) { return {_mm512_cvtps_epi32(x.a)}; }
inline F32x16 exp2_i32(I32x16 n) {
  const __m512i biased = _mm512_add_epi32(n.a, _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
inline void split_planes(I32x16 x, I32x16* hi, I32x16* lo) {               // rounds towards zero
  const __m512i bias = _mm512_srli_epi32(_mm512_srai_epi32(x.a, 31), 25);  // 127 where negative
  hi->a = _mm512_srai_epi32(_mm512_add_epi32(x.a, bias), 7);
  lo->a = _mm512_sub_epi32(x.a, _mm512_slli_epi32(hi->a, 7));
}
inline __m256 join_planes(__m256i hi, __m256i lo) {  // |128 hi + lo| < 2^39: exact in double
  const __m512d high = _mm512_mul_pd(_mm512_cvtepi32_pd(hi), _mm512_set1_pd(128.0));
  return _mm512_cvtpd_ps(_mm512_add_pd(high, _mm512_cvtepi32_pd(lo)));
}
inline F32x16 join_planes(I32x16 hi, I32x16 lo) {
  const __m256 low = join_planes(_mm512_castsi512_si256(hi.a), _mm512_castsi512_si256(lo.a));
  const __m256 high =
      join_planes(_mm512_extracti32x8_epi32(hi.a, 1), _mm512_extracti32x8_epi32(lo.a, 1));
  return {_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1)};
}

// ---- over the lanes ----
inline float fold_add(F32x16 x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.a), _mm512_extractf32x8_ps(x.a, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float fold_max(F32x16 x) { return _mm512_reduce_max_ps(x.a); }
inline int32_t sum_i32(I32x16 x) { return _mm512_reduce_add_epi32(x.a); }

}  // namespace
}  // namespace bitinfer
