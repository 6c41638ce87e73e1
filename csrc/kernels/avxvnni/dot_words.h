// Dot-product vocabulary of the avxvnni row for vnni_kernels.inl.h, after avx2/bytes.h.
#pragma once

using DotVec = __m256i;
constexpr int kDotBytes = 32;
constexpr int kI2DotLanes = 4;
constexpr int kMicroTokens =
    6;  // 2 vectors x 6 tokens of sums, 2 of codes, 1 of activations: 15 registers
constexpr DotShape kFewI2 = {2, 3};
constexpr int64_t kFewI2Tokens = 32;  // up to so many gemm_few_i2 is faster than panels
constexpr DotShape kFewHead = {2, 2};
constexpr DotShape kBatchHead = {2, 5};

BITINFER_INLINE DotVec load_dot(const void* p) {
  return load_bytes(static_cast<const uint8_t*>(p));
}
BITINFER_INLINE void store_dot(void* p, DotVec a) { store_bytes(p, a); }
BITINFER_INLINE DotVec fill_dot_bytes(int x) { return fill_bytes(x); }
BITINFER_INLINE DotVec fill_dot_words(int32_t x) { return _mm256_set1_epi32(x); }
BITINFER_INLINE DotVec and_dot(DotVec a, DotVec b) { return and_bytes(a, b); }
BITINFER_INLINE DotVec xor_dot(DotVec a, DotVec b) { return _mm256_xor_si256(a, b); }
BITINFER_INLINE DotVec shift_right_4(DotVec a) { return shift_words_right<4>(a); }
BITINFER_INLINE DotVec quarter_words(DotVec a) { return _mm256_srai_epi32(a, 2); }
// sum + the four products u8 x i8 of each 32-bit lane
BITINFER_INLINE DotVec dot_add(DotVec sum, DotVec u8, DotVec i8) {
  return _mm256_dpbusd_avx_epi32(sum, u8, i8);
}
// Of every 16 bytes the low (half 0) or high 8, those of a and b in turn.
template <int half>
BITINFER_INLINE DotVec interleave_bytes(DotVec a, DotVec b) {
  return half ? _mm256_unpackhi_epi8(a, b) : _mm256_unpacklo_epi8(a, b);
}
template <int half>
BITINFER_INLINE DotVec interleave_words(DotVec a, DotVec b) {
  return half ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b);
}
// acc[16 l + i] += the 32-bit lane i of 128-bit lane l, i = 0..3 in `low`, 4..7 in `high`.
BITINFER_INLINE void add_to_eights(DotVec low, DotVec high, int32_t* acc) {
  const DotVec more[2] = {_mm256_permute2x128_si256(low, high, 0x20),
                          _mm256_permute2x128_si256(low, high, 0x31)};
  for (int l = 0; l < 2; ++l) {
    __m256i* to = reinterpret_cast<__m256i*>(acc + 16 * l);
    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), more[l]));
  }
}
BITINFER_INLINE DotVec add_products(DotVec sum, DotVec u0, DotVec x0, DotVec u1, DotVec x1) {
  return dot_add(dot_add(sum, u0, x0), u1, x1);
}
BITINFER_INLINE void keep_in_place(DotVec& sum) { __asm__("" : "+x"(sum)); }

// acc[r] = (a_sum ? -*a_sum : acc[r]) + sum[r] for the first min(rows, 8) lanes.
BITINFER_INLINE void store_rows(DotVec sum, int rows, const int32_t* a_sum, int32_t* acc) {
  alignas(32) int32_t lanes[8];
  store_bytes(lanes, sum);
  for (int r = 0; r < rows && r < 8; ++r) acc[r] = (a_sum ? -*a_sum : acc[r]) + lanes[r];
}
