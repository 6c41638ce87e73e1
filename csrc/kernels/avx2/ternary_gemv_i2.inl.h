// i2 GEMV of the avx2 row: by maddubs, and by additions only. Included inside its anonymous
// namespace.
#pragma once

constexpr int64_t kI2BlockBytes = kLayouts[static_cast<int>(Packing::kI2)].block_bytes;
constexpr int64_t kI2BlockK = kLayouts[static_cast<int>(Packing::kI2)].block_k;
constexpr int kI2DotLanes = 4;

BITINFER_INLINE int32_t sum_words32(__m256i a) { return static_cast<int32_t>(fold_words(a)); }

// acc = sum_k c * a - sum_k a. The codes of column groups 1 and 3 stay in bits 3..2, so that one
// shift a vector suffices: their sums are 4 times too large, in an accumulator of their own. Range:
// 4 c * a pairs in -2048..2032; a K-block adds 4 of them a lane, so 4 K-blocks reach -32768 at
// most.
// fetch(r, block) prefetches for lane r while that block of it is read.
template <int count, typename Fetch>
BITINFER_INLINE void i2_dot_lanes(const LaneGroup<count>& lanes, int64_t num_blocks,
                                  const Activation& a, const Fetch& fetch) {
  constexpr int64_t kWidenBlocks = 4;
  const __m256i low = _mm256_set1_epi8(0x03);
  const __m256i mid = _mm256_set1_epi8(0x0c);
  const uint8_t* w[count];
  __m256i sum[count];
  for (int r = 0; r < count; ++r) {
    w[r] = lanes.tile[r];
    sum[r] = _mm256_setzero_si256();
  }
  const uint8_t* act = reinterpret_cast<const uint8_t*>(a.codes);
  for (int64_t left = num_blocks; left > 0; left -= kWidenBlocks) {
    __m256i sum1[count], sum4[count];
    for (int r = 0; r < count; ++r) sum1[r] = sum4[r] = _mm256_setzero_si256();
    for (int64_t b = left < kWidenBlocks ? left : kWidenBlocks; b > 0; --b, act += kI2BlockK) {
      for (int r = 0; r < count; ++r) fetch(r, w[r]);
      for (int half = 0; half < 64; half += 32) {
        __m256i x[4];
        for (int g = 0; g < 4; ++g) x[g] = load_bytes(act + 64 * g + half);
        for (int r = 0; r < count; ++r) {
          const __m256i bytes = load_bytes(w[r] + half);
          const __m256i upper = _mm256_srli_epi16(bytes, 4);
          const __m256i c0 = _mm256_maddubs_epi16(_mm256_and_si256(bytes, low), x[0]);
          const __m256i c1 = _mm256_maddubs_epi16(_mm256_and_si256(bytes, mid), x[1]);
          const __m256i c2 = _mm256_maddubs_epi16(_mm256_and_si256(upper, low), x[2]);
          const __m256i c3 = _mm256_maddubs_epi16(_mm256_and_si256(upper, mid), x[3]);
          sum1[r] = _mm256_add_epi16(sum1[r], _mm256_add_epi16(c0, c2));
          sum4[r] = _mm256_add_epi16(sum4[r], _mm256_add_epi16(c1, c3));
        }
      }
      for (int r = 0; r < count; ++r) w[r] += kI2BlockBytes;
    }
    for (int r = 0; r < count; ++r) {
      const __m256i both = _mm256_add_epi16(sum1[r], _mm256_srai_epi16(sum4[r], 2));
      sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
    }
  }
  for (int r = 0; r < count; ++r) *lanes.acc[r] = sum_words32(sum[r]) - a.sum;
}

// The tables of the addsub form: activations as a = 16 h + l, l in -8..7, h in -8..8, so that a
// K-block adds up in int8 (8 * 8 = 64) and even -128 can be negated. Per K-block and 32 columns: 32
// bytes l, then 32 bytes h.
constexpr int64_t kI2TableBytes = 512;

BITINFER_INLINE void build_i2_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  codes += block_begin << 8;
  tables += block_begin << 9;
  const __m256i bias = _mm256_set1_epi8(-128);
  for (int64_t left = (block_end - block_begin) << 3; left > 0; --left, codes += 32, tables += 64) {
    const __m256i a = load_bytes(reinterpret_cast<const uint8_t*>(codes));
    // h = (a + 8) >> 4 on bytes: the average with 7 keeps the ninth bit.
    const __m256i half = _mm256_avg_epu8(_mm256_xor_si256(a, bias), _mm256_set1_epi8(7));
    const __m256i biased = _mm256_and_si256(_mm256_srli_epi16(half, 3), _mm256_set1_epi8(0x1f));
    const __m256i h = _mm256_sub_epi8(biased, _mm256_set1_epi8(8));
    const __m256i h16 = _mm256_and_si256(_mm256_slli_epi16(h, 4), _mm256_set1_epi8(-16));
    store_bytes(tables, _mm256_sub_epi8(a, h16));
    store_bytes(tables + 32, h);
  }
}

// acc = sum_k w * a: psign takes a byte's sign from the weight, left in place as 4^g w.
template <int count>
BITINFER_INLINE void i2_addsub_lanes(const LaneGroup<count>& lanes, int64_t num_blocks,
                                     const uint8_t* tables) {
  const __m256i bias = _mm256_set1_epi8(-128);
  const uint8_t* w[count];
  __m256i sum[2][count];
  for (int r = 0; r < count; ++r) {
    w[r] = lanes.tile[r];
    sum[0][r] = sum[1][r] = _mm256_setzero_si256();
  }
  for (int64_t b = 0; b < num_blocks; ++b, tables += kI2TableBytes) {
    __m256i low[count], high[count];
    for (int r = 0; r < count; ++r) {
      prefetch(w[r] + prefetch_ahead<count>(r));
      low[r] = high[r] = bias;
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const int g = i / 2, half = i % 2;
      const __m256i code = _mm256_set1_epi8(static_cast<char>(3 << (2 * g)));
      const __m256i zero = _mm256_set1_epi8(static_cast<char>(1 << (2 * g)));
      const __m256i l = load_bytes(tables + 128 * g + 64 * half);
      const __m256i h = load_bytes(tables + 128 * g + 64 * half + 32);
      for (int r = 0; r < count; ++r) {
        const __m256i bytes = load_bytes(w[r] + 32 * half);
        const __m256i weight = _mm256_sub_epi8(_mm256_and_si256(bytes, code), zero);
        low[r] = _mm256_add_epi8(low[r], _mm256_sign_epi8(l, weight));
        high[r] = _mm256_add_epi8(high[r], _mm256_sign_epi8(h, weight));
        keep_order(low[r]);
        keep_order(high[r]);
      }
    }
    const __m256i none = _mm256_setzero_si256();
    for (int r = 0; r < count; ++r) {
      sum[0][r] = _mm256_add_epi64(sum[0][r], _mm256_sad_epu8(low[r], none));
      sum[1][r] = _mm256_add_epi64(sum[1][r], _mm256_sad_epu8(high[r], none));
      w[r] += kI2BlockBytes;
    }
  }
  // 32 biased bytes a K-block and plane; the two planes weigh 1 and 16. All mod 2^32.
  const int64_t bias_sum = (num_blocks << 12) + (num_blocks << 16);
  for (int r = 0; r < count; ++r) {
    const __m256i total = _mm256_add_epi64(sum[0][r], _mm256_slli_epi64(sum[1][r], 4));
    const __m128i folded =
        _mm_add_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    const int64_t biased = _mm_cvtsi128_si64(folded) + _mm_extract_epi64(folded, 1);
    *lanes.acc[r] = static_cast<int32_t>(biased - bias_sum);
  }
}
