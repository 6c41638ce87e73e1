// Dot-product vocabulary of the AVX-512 rows for vnni_kernels.inl.h, after words.h.
#pragma once

using DotVec = __m512i;
constexpr int kDotBytes = 64;
constexpr int kI2DotLanes = 8;
constexpr int kMicroTokens =
    12;  // 2 vectors x 12 tokens of sums, 2 of codes, 1 of activations: 27 registers
constexpr DotShape kFewI2 = {4, 3};
constexpr int64_t kFewI2Tokens = 64;  // up to so many gemm_few_i2 is faster than panels
constexpr DotShape kFewHead = {2, 2};
constexpr DotShape kBatchHead = {4, 5};

BITINFER_INLINE DotVec load_dot(const void* p) { return load64(p); }
BITINFER_INLINE void store_dot(void* p, DotVec a) { _mm512_storeu_si512(p, a); }
BITINFER_INLINE DotVec fill_dot_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
BITINFER_INLINE DotVec fill_dot_words(int32_t x) { return _mm512_set1_epi32(x); }
BITINFER_INLINE DotVec and_dot(DotVec a, DotVec b) { return _mm512_and_si512(a, b); }
BITINFER_INLINE DotVec xor_dot(DotVec a, DotVec b) { return _mm512_xor_si512(a, b); }
BITINFER_INLINE DotVec shift_right_4(DotVec a) { return _mm512_srli_epi16(a, 4); }
BITINFER_INLINE DotVec quarter_words(DotVec a) { return _mm512_srai_epi32(a, 2); }
// sum + the four products u8 x i8 of each 32-bit lane
BITINFER_INLINE DotVec dot_add(DotVec sum, DotVec u8, DotVec i8) {
  return _mm512_dpbusd_epi32(sum, u8, i8);
}

// Of every 16 bytes the low (half 0) or high 8, those of a and b in turn.
template <int half>
BITINFER_INLINE DotVec interleave_bytes(DotVec a, DotVec b) {
  return half ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b);
}
template <int half>
BITINFER_INLINE DotVec interleave_words(DotVec a, DotVec b) {
  return half ? _mm512_unpackhi_epi16(a, b) : _mm512_unpacklo_epi16(a, b);
}
// acc[16 l + i] += the 32-bit lane i of 128-bit lane l, i = 0..3 in `low`, 4..7 in `high`.
BITINFER_INLINE void add_to_eights(DotVec low, DotVec high, int32_t* acc) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const __m512i pairs[2] = {_mm512_permutex2var_epi64(low, first, high),
                            _mm512_permutex2var_epi64(low, second, high)};
  for (int l = 0; l < 4; ++l) {
    const __m256i more =
        l % 2 ? _mm512_extracti64x4_epi64(pairs[l / 2], 1) : _mm512_castsi512_si256(pairs[l / 2]);
    __m256i* to = reinterpret_cast<__m256i*>(acc + 16 * l);
    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), more));
  }
}

BITINFER_INLINE __m256i join_halves(DotVec a) {
  return _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
}
// Of v[0..3]: in each 128-bit lane the sums of that lane and the one 256 bits on, of v[i] in 32-bit
// lane i.
BITINFER_INLINE __m256i join_four(const DotVec* v) {
  return _mm256_hadd_epi32(_mm256_hadd_epi32(join_halves(v[0]), join_halves(v[1])),
                           _mm256_hadd_epi32(join_halves(v[2]), join_halves(v[3])));
}

// out[i] = sum of the 32-bit lanes of v[i]: four are joined by a tree.
template <int count>
BITINFER_INLINE void sum_lanes(const DotVec* v, int32_t* out) {
  if constexpr (count % 4 == 0) {
    for (int i = 0; i < count; i += 4) {
      const __m256i four = join_four(v + i);
      _mm_storeu_si128(
          reinterpret_cast<__m128i*>(out + i),
          _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)));
    }
  } else {
    for (int i = 0; i < count; ++i) out[i] = static_cast<int32_t>(fold_words(v[i]));
  }
}

// acc[r] = (a_sum ? -*a_sum : acc[r]) + sum[r] for the first min(rows, 16) lanes.
BITINFER_INLINE void store_rows(DotVec sum, int rows, const int32_t* a_sum, int32_t* acc) {
  const __mmask16 exists =
      static_cast<__mmask16>(rows < 16 ? rows > 0 ? (1u << rows) - 1 : 0u : ~0u);
  const __m512i start = a_sum ? _mm512_set1_epi32(-*a_sum) : _mm512_maskz_loadu_epi32(exists, acc);
  _mm512_mask_storeu_epi32(acc, exists, _mm512_add_epi32(start, sum));
}
