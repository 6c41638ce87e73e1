// The SIMD vocabulary (scalar/simd.h documents each word) for AVX2 + F16C + FMA: 16 lanes are two
// registers.
#pragma once
#define BITINFER_SIMD 1

#include <immintrin.h>

#include <cstdint>

namespace bitinfer {
namespace {

struct F32x16 {
  __m256 a, b;
};
struct I32x16 {
  __m256i a, b;
};

inline __m256i load_256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

struct I16x32 {
  __m256i a, b;
};
constexpr int kSumVectors = 1;

// ---- loads, stores ----
inline F32x16 zero_f32() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline I32x16 zero_i32() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline F32x16 set_f32(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 load_f32(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F32x16 load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}
inline F32x16 load_bf16(const uint16_t* p) {
  const __m256i a = _mm256_cvtepu16_epi32(load_128(p));
  const __m256i b = _mm256_cvtepu16_epi32(load_128(p + 8));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
inline I32x16 load_i32(const int32_t* p) { return {load_256(p), load_256(p + 8)}; }
inline I32x16 load_i8(const int8_t* p) {
  const __m128i x = load_128(p);
  return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
inline I16x32 widen_i8(const int8_t* p) {
  return {_mm256_cvtepi8_epi16(load_128(p)), _mm256_cvtepi8_epi16(load_128(p + 16))};
}
inline I16x32 set_pair(const void* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return {_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
}
inline void store_f32(float* p, F32x16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store_f16(uint16_t* p, F32x16 x) {
  __m128i* to = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(to, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(to + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_i8(int8_t* p, I32x16 x) {
  // packs interleaves 128-bit halves: 32-bit groups come out as a0 b0 a1 b1 of 4 bytes each
  const __m256i words = _mm256_packs_epi32(x.a, x.b);
  const __m256i bytes = _mm256_packs_epi16(words, words);
  const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_shuffle_epi32(_mm_unpacklo_epi64(low, high), _MM_SHUFFLE(3, 1, 2, 0)));
}
inline void store_i16(int16_t* p, I32x16 x) {
  const __m256i words = _mm256_packs_epi32(x.a, x.b);  // 64-bit groups come out as a0 b0 a1 b1
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0)));
}

// ---- arithmetic ----
inline F32x16 operator+(F32x16 x, F32x16 y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline F32x16 operator-(F32x16 x, F32x16 y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline F32x16 operator*(F32x16 x, F32x16 y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline F32x16 operator/(F32x16 x, F32x16 y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
inline F32x16 add_exact_product(F32x16 sum, F32x16 x, F32x16 y) {
  return {_mm256_fmadd_ps(x.a, y.a, sum.a), _mm256_fmadd_ps(x.b, y.b, sum.b)};
}
inline F32x16 select_gt(F32x16 x, F32x16 y, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ)),
          _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ))};
}
inline F32x16 max(F32x16 x, F32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F32x16 min(F32x16 x, F32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F32x16 abs(F32x16 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline I32x16 operator+(I32x16 x, I32x16 y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
inline I32x16 add_pair_products(I32x16 sum, I16x32 x, I16x32 y) {
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(x.a, y.a)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(x.b, y.b))};
}

// ---- conversions ----
inline F32x16 to_f32(I32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I32x16 round_i32(F32x16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline __m256 exp2_i32(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
inline F32x16 exp2_i32(I32x16 n) { return {exp2_i32(n.a), exp2_i32(n.b)}; }
inline void split_planes(__m256i x, __m256i* hi, __m256i* lo) {          // rounds towards zero
  const __m256i bias = _mm256_srli_epi32(_mm256_srai_epi32(x, 31), 25);  // 127 where negative
  *hi = _mm256_srai_epi32(_mm256_add_epi32(x, bias), 7);
  *lo = _mm256_sub_epi32(x, _mm256_slli_epi32(*hi, 7));
}
inline void split_planes(I32x16 x, I32x16* hi, I32x16* lo) {
  split_planes(x.a, &hi->a, &lo->a);
  split_planes(x.b, &hi->b, &lo->b);
}
inline __m128 join_planes(__m128i hi, __m128i lo) {  // |128 hi + lo| < 2^39: exact in double
  const __m256d high = _mm256_mul_pd(_mm256_cvtepi32_pd(hi), _mm256_set1_pd(128.0));
  return _mm256_cvtpd_ps(_mm256_add_pd(high, _mm256_cvtepi32_pd(lo)));
}
inline __m256 join_planes(__m256i hi, __m256i lo) {
  return _mm256_set_m128(
      join_planes(_mm256_extracti128_si256(hi, 1), _mm256_extracti128_si256(lo, 1)),
      join_planes(_mm256_castsi256_si128(hi), _mm256_castsi256_si128(lo)));
}
inline F32x16 join_planes(I32x16 hi, I32x16 lo) {
  return {join_planes(hi.a, lo.a), join_planes(hi.b, lo.b)};
}

// ---- over the lanes ----
inline float fold_add(F32x16 x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float fold_max(F32x16 x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline int32_t sum_i32(I32x16 x) {
  const __m256i eight = _mm256_add_epi32(x.a, x.b);
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(sum);
}

}  // namespace
}  // namespace bitinfer
