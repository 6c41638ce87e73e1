// The multiplying inner loops of the avx2 row: GEMM micro-kernel and int8 dots. Included in its
// anonymous namespace.
#pragma once

constexpr DotShape kFewHead = {2, 2};
constexpr DotShape kBatchHead = {4, 2};

// See ternary_gemm.inl.h. A pair c * a is in -512..508: int16 holds 64 of them.
// Not inlined: GCC 12 then keeps the sums in registers.
struct DotMicro {
  static constexpr int kGroups = 1;
  // 2 vectors x 6 tokens of sums, 2 of codes, 1 of activations: 15 registers
  static constexpr int kTokens = 6;
  static constexpr int kWholeTokens = 0;

  template <int tokens>
  static BITINFER_SYMBOL void run(const uint8_t* panel, int64_t /*group_bytes*/, int64_t quads,
                                  int rows, const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                  int32_t* acc, int64_t acc_stride) {
    constexpr int64_t kWidenQuads = 64;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[tokens][2];
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int64_t first = 0; first < quads; first += kWidenQuads) {
      const int64_t end = quads - first < kWidenQuads ? quads : first + kWidenQuads;
      __m256i part[tokens][2];
#pragma GCC unroll 6
      for (int t = 0; t < tokens; ++t) part[t][0] = part[t][1] = _mm256_setzero_si256();
      for (int64_t q = first; q < end; ++q) {
        const __m256i c0 = load32(panel + q * kQuadBytes);
        const __m256i c1 = load32(panel + q * kQuadBytes + 32);
#pragma GCC unroll 6
        for (int t = 0; t < tokens; ++t) {
          int32_t four;
          __builtin_memcpy(&four, a + t * a_stride + 4 * q, 4);
          const __m256i x = _mm256_set1_epi32(four);
          part[t][0] = _mm256_add_epi16(part[t][0], _mm256_maddubs_epi16(c0, x));
          part[t][1] = _mm256_add_epi16(part[t][1], _mm256_maddubs_epi16(c1, x));
          keep_order(part[t][0]);
          keep_order(part[t][1]);
        }
      }
      for (int t = 0; t < tokens; ++t) {
        for (int v = 0; v < 2; ++v) {
          sum[t][v] = _mm256_add_epi32(sum[t][v], _mm256_madd_epi16(part[t][v], ones));
        }
      }
    }
    for (int t = 0; t < tokens; ++t, acc += acc_stride) {
      alignas(32) int32_t out[kGroupRows];
      store_bytes(out, sum[t][0]);
      store_bytes(out + 8, sum[t][1]);
      for (int r = 0; r < rows; ++r) acc[r] = (a_sum ? -a_sum[t] : acc[r]) + out[r];
    }
  }
};

// See head_planes.inl.h. Four products of at most 63 * 127 stay below 2^15.
BITINFER_INLINE __m256i add_products(__m256i sum, __m256i u0, __m256i x0, __m256i u1, __m256i x1) {
  const __m256i pairs =
      _mm256_add_epi16(_mm256_maddubs_epi16(u0, x0), _mm256_maddubs_epi16(u1, x1));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// See kernel_table.h: the instructions of DotMicro.
BITINFER_INLINE int64_t multiply_peak_steps(int64_t steps) {
  constexpr int kSums = 8;
  __m256i codes = _mm256_set1_epi8(1);
  const __m256i x = codes;
  __m256i sum[kSums];
#pragma GCC unroll 8
  for (int j = 0; j < kSums; ++j) sum[j] = _mm256_setzero_si256();
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kSums; ++j) {
      sum[j] = _mm256_add_epi16(sum[j], _mm256_maddubs_epi16(codes, x));
      __asm__ volatile("" : "+x"(sum[j]), "+x"(codes));  // none is left out, each is its own
    }
  }
  return steps * kSums * 32;
}

// See gemm_i8.inl.h. |w| * (a with w's sign): |-128| is 128 unsigned, so a pair is at most
// 2 * 128 * 127 < 32768.
template <int rows, int tokens, int ahead>
BITINFER_INLINE void dot_rows(const int8_t* const* w, const int8_t* a, int64_t a_stride,
                              const int32_t* /*a_sum*/, int64_t k, int32_t* const* acc,
                              int64_t acc_stride) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[rows][tokens];
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < tokens; ++t) sum[r][t] = _mm256_setzero_si256();
  }
  for (int64_t at = 0; at < k; at += 32) {
    for (int r = 0; r < rows; ++r) {
      prefetch(reinterpret_cast<const uint8_t*>(w[r]) + at + ahead);
      const __m256i weight = load32(w[r] + at);
      const __m256i magnitude = _mm256_abs_epi8(weight);
      for (int t = 0; t < tokens; ++t) {
        const __m256i x = _mm256_sign_epi8(load32(a + t * a_stride + at), weight);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, x);
        sum[r][t] = _mm256_add_epi32(sum[r][t], _mm256_madd_epi16(pairs, ones));
        keep_order(sum[r][t]);
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < tokens; ++t) acc[r][t * acc_stride] = sum_words32(sum[r][t]);
  }
}
