// The inner loops of the avx512vnni row, all on vpdpbusd. Included inside its anonymous namespace.
#pragma once

constexpr int64_t kI2BlockBytes = kLayouts[static_cast<int>(Packing::kI2)].block_bytes;
constexpr int64_t kI2BlockK = kLayouts[static_cast<int>(Packing::kI2)].block_k;

// out[i] = sum of the 32-bit lanes of v[i], count = 1, 2, 4 or 8: the vectors are joined by a tree.
template <int count>
BITINFER_INLINE void sum_lanes(const __m512i* v, int32_t* out) {
  if constexpr (count == 8) {
    __m256i x[8];
    for (int i = 0; i < 8; ++i) {
      x[i] = _mm256_add_epi32(_mm512_castsi512_si256(v[i]), _mm512_extracti64x4_epi64(v[i], 1));
    }
    for (int i = 0; i < 8; i += 2) x[i / 2] = _mm256_hadd_epi32(x[i], x[i + 1]);
    for (int i = 0; i < 4; i += 2) x[i / 2] = _mm256_hadd_epi32(x[i], x[i + 1]);
    const __m256i low = _mm256_permute2x128_si256(x[0], x[1], 0x20);
    const __m256i high = _mm256_permute2x128_si256(x[0], x[1], 0x31);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_add_epi32(low, high));
  } else {
    for (int i = 0; i < count; ++i) out[i] = static_cast<int32_t>(fold_words(v[i]));
  }
}

// acc = sum_k c * a - sum_k a. The codes of column groups 1 and 3 stay in bits 3..2, so that one
// shift a vector suffices: their sums are 4 times too large, in an accumulator of their own (2^15
// K-blocks of 2 * 4 * 1024 fit).
template <int count>
BITINFER_INLINE void i2_dot_lanes(const LaneGroup<count>& lanes, int64_t num_blocks,
                                  const Activation& a) {
  const __m512i low = _mm512_set1_epi8(0x03);
  const __m512i mid = _mm512_set1_epi8(0x0c);
  const uint8_t* w[count];
  __m512i sum1[count], sum4[count];
  for (int r = 0; r < count; ++r) {
    w[r] = lanes.tile[r];
    sum1[r] = sum4[r] = _mm512_setzero_si512();
  }
  const int8_t* act = a.codes;
  for (int64_t b = 0; b < num_blocks; ++b, act += kI2BlockK) {
    __m512i x[4];
    for (int g = 0; g < 4; ++g) x[g] = load64(act + 64 * g);
    for (int r = 0; r < count; ++r) {
      prefetch(w[r] + kPrefetchAhead);
      const __m512i bytes = load64(w[r]);
      const __m512i upper = _mm512_srli_epi16(bytes, 4);
      sum1[r] = _mm512_dpbusd_epi32(sum1[r], _mm512_and_si512(bytes, low), x[0]);
      sum4[r] = _mm512_dpbusd_epi32(sum4[r], _mm512_and_si512(bytes, mid), x[1]);
      sum1[r] = _mm512_dpbusd_epi32(sum1[r], _mm512_and_si512(upper, low), x[2]);
      sum4[r] = _mm512_dpbusd_epi32(sum4[r], _mm512_and_si512(upper, mid), x[3]);
      w[r] += kI2BlockBytes;
    }
  }
  int32_t sums[count];
  for (int r = 0; r < count; ++r)
    sum1[r] = _mm512_add_epi32(sum1[r], _mm512_srai_epi32(sum4[r], 2));
  sum_lanes<count>(sum1, sums);
  for (int r = 0; r < count; ++r) *lanes.acc[r] = sums[r] - a.sum;
}

constexpr int kI2DotLanes = 8;
constexpr int kHeadRows = 8;
constexpr int kHeadTokens = 2;

// See ternary_gemm.inl.h.
struct DotMicro {
  static constexpr int kGroups = 2;
  // 2 vectors x 12 tokens of sums, 2 of codes, 1 of activations: 27 registers
  static constexpr int kTokens = 12;

  template <int tokens>
  static BITINFER_INLINE void run(const uint8_t* panel, int64_t group_bytes, int64_t quads,
                                  int rows, const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                  int32_t* acc, int64_t acc_stride) {
    __m512i sum[tokens][2];
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) sum[t][0] = sum[t][1] = _mm512_setzero_si512();
    for (int64_t q = 0; q < quads; ++q) {
      const __m512i c0 = load64(panel + q * kQuadBytes);
      const __m512i c1 = load64(panel + q * kQuadBytes + group_bytes);
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        int32_t four;
        __builtin_memcpy(&four, a + t * a_stride + 4 * q, 4);
        const __m512i x = _mm512_set1_epi32(four);
        sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], c0, x);
        sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], c1, x);
        keep_in_place(sum[t][0]);
        keep_in_place(sum[t][1]);
      }
    }
    const uint32_t exists = rows < 32 ? (1u << rows) - 1 : ~0u;
    const __mmask16 mask[2] = {static_cast<__mmask16>(exists),
                               static_cast<__mmask16>(exists >> 16)};
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t, acc += acc_stride) {
      for (int v = 0; v < 2; ++v) {
        int32_t* out = acc + v * kGroupRows;
        const __m512i start =
            a_sum ? _mm512_set1_epi32(-a_sum[t]) : _mm512_maskz_loadu_epi32(mask[v], out);
        _mm512_mask_storeu_epi32(out, mask[v], _mm512_add_epi32(start, sum[t][v]));
      }
    }
  }
};
using Micro = DotMicro;

// See gemm_i8.inl.h. w + 128 is unsigned: acc = sum_k (w + 128) * a - 128 * a_sum, mod 2^32.
template <int rows, int tokens>
BITINFER_INLINE void dot_rows(const int8_t* const* w, const int8_t* a, int64_t a_stride,
                              const int32_t* a_sum, int64_t k, int32_t* const* acc,
                              int64_t acc_stride) {
  const __m512i bias = _mm512_set1_epi8(-128);
  __m512i sum[tokens][rows];
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) sum[t][r] = _mm512_setzero_si512();
  }
  for (int64_t at = 0; at < k; at += 64) {
    __m512i x[tokens];
    for (int t = 0; t < tokens; ++t) x[t] = load64(a + t * a_stride + at);
    for (int r = 0; r < rows; ++r) {
      prefetch(reinterpret_cast<const uint8_t*>(w[r]) + at + kPrefetchAhead);
      const __m512i biased = _mm512_xor_si512(load64(w[r] + at), bias);
      for (int t = 0; t < tokens; ++t) {
        sum[t][r] = _mm512_dpbusd_epi32(sum[t][r], biased, x[t]);
        keep_in_place(sum[t][r]);
      }
    }
  }
  for (int t = 0; t < tokens; ++t) {
    int32_t sums[rows];
    sum_lanes<rows>(sum[t], sums);
    const uint32_t biased_sum = static_cast<uint32_t>(a_sum[t]) << 7;
    for (int r = 0; r < rows; ++r) {
      acc[r][t * acc_stride] = static_cast<int32_t>(static_cast<uint32_t>(sums[r]) - biased_sum);
    }
  }
}
