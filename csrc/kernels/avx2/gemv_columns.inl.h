// gemv_columns of the avx2 row, after chosen_rows.inl.h: the bytes of two columns are interleaved,
// so that maddubs adds the two products of a matrix row. Included inside its anonymous namespace.
//
// int16 sums stay in `scratch`, in the order of interleaving, for kBatches batches of columns.
// Range: 4 c * a pairs in -2048..2032 (codes of groups 1 and 3 stay in bits 3..2), 16 of them.
#pragma once

constexpr int64_t kBatches = 4;
static_assert(kBatches * kColumns / 2 == 16, "pairs");

// sum[4 half + g]: 16 l + 8 half .. + 8 of group g from lane l.
BITINFER_INLINE void add_column_pairs(const Columns& columns, int64_t offset, __m256i* sum) {
  const __m256i low = _mm256_set1_epi8(0x03);
  const __m256i mid = _mm256_set1_epi8(0x0c);
  for (int c = 0; c < kColumns; c += 2) {
    const __m256i a = load_bytes(columns.w[c] + offset);
    const __m256i b = load_bytes(columns.w[c + 1] + offset);
    const __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
    int16_t two;
    __builtin_memcpy(&two, columns.codes + c, 2);
    const __m256i x = _mm256_set1_epi16(two);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i upper = _mm256_srli_epi16(ab[half], 4);
      const __m256i codes[4] = {_mm256_and_si256(ab[half], low), _mm256_and_si256(ab[half], mid),
                                _mm256_and_si256(upper, low), _mm256_and_si256(upper, mid)};
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        __m256i& s = sum[4 * half + g];
        s = _mm256_add_epi16(s, _mm256_maddubs_epi16(codes[g], x));
        keep_order(s);
      }
    }
  }
}

// acc += the sums of 32 bytes' codes - the sum of the activations: codes are weights + 1.
BITINFER_INLINE void widen_columns(const __m256i* sum, __m256i minus_sum, int32_t* acc) {
  for (int i = 0; i < 8; ++i) {
    const __m256i once = i % 2 ? _mm256_srai_epi16(sum[i], 2) : sum[i];
    const __m128i lanes[2] = {_mm256_castsi256_si128(once), _mm256_extracti128_si256(once, 1)};
    for (int l = 0; l < 2; ++l) {
      __m256i* to = reinterpret_cast<__m256i*>(acc + 64 * (i % 4) + 8 * (i / 4) + 16 * l);
      const __m256i more = _mm256_add_epi32(_mm256_cvtepi16_epi32(lanes[l]), minus_sum);
      _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), more));
    }
  }
}

BITINFER_INLINE void gemv_columns_by_pairs(const ChosenRows& w, const int8_t* codes,
                                           int32_t* scratch, int32_t* acc) {
  assert(w.count >= 1 && w.num_blocks >= 1);
  const RowRuns runs{w};
  int32_t code_sum = 0;
  for (int64_t i = 0; i < runs.run; ++i) {
    const Columns columns = take_columns(runs, codes, i);
    const bool first = i % kBatches == 0;
    const bool last = i % kBatches == kBatches - 1 || i + 1 == runs.run;
    code_sum = (first ? 0 : code_sum) + columns.sum;
    __m256i* kept = reinterpret_cast<__m256i*>(scratch);
    for (int64_t offset = 0; offset < w.num_blocks * kI2BlockBytes; offset += 32, kept += 8) {
      if (offset % 64 == 0) {
        for (int c = 0; c < kColumns; ++c) columns.fetch(c, columns.w[c] + offset);
      }
      __m256i sum[8];
      for (int k = 0; k < 8; ++k) {
        sum[k] = first ? _mm256_setzero_si256() : _mm256_loadu_si256(kept + k);
      }
      add_column_pairs(columns, offset, sum);
      for (int k = 0; k < 8; ++k) _mm256_storeu_si256(kept + k, sum[k]);
      if (last) {
        widen_columns(sum, _mm256_set1_epi32(-code_sum),
                      acc + offset / 64 * kI2BlockK + offset % 64);
      }
    }
  }
}
