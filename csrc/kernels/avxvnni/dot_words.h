// Dot-product vocabulary of the avxvnni row for vnni_kernels.inl.h, after avx2/bytes.h.
#pragma once

using DotVec = __m256i;
constexpr int kDotBytes = 32;
constexpr int kI2DotLanes = 4;
constexpr int kMicroTokens =
    6;  // 2 vectors x 6 tokens of sums, 2 of codes, 1 of activations: 15 registers
constexpr int kHeadRows = 4;
constexpr int kHeadTokens = 2;

BITINFER_INLINE DotVec load_dot(const void* p) {
  return load_bytes(static_cast<const uint8_t*>(p));
}
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
