// Sums of groups of columns within an i2 K-block (kernel_table.h: GemvGroupsFn) by maddubs, 8 rows
// at a time. Included inside the anonymous namespace of the avx2 row.
//
// A quarter of a block (64 columns) leaves 16 int16 lanes of 4 columns each; a group has one or two
// quarters, a lane at most 2 * 8 * 128 in magnitude. The lanes of 8 rows become one vector of 8
// sums by adding pairs and packing to int16: 2 * 128 * 128 at most, and only as -32768.
#pragma once

BITINFER_INLINE __m256i add_pairs(__m256i a) { return _mm256_madd_epi16(a, _mm256_set1_epi16(1)); }

// Lane r: the sum of the 16 int16 lanes of v[r].
BITINFER_INLINE __m256i sum_of_rows(const __m256i* v) {
  __m256i four[2];  // rows 4 i..4 i + 3 in the lanes of each 128 bits
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m256i* r = v + 4 * i;
    const __m256i a = add_pairs(_mm256_packs_epi32(add_pairs(r[0]), add_pairs(r[1])));
    const __m256i b = add_pairs(_mm256_packs_epi32(add_pairs(r[2]), add_pairs(r[3])));
    four[i] = add_pairs(_mm256_packs_epi32(a, b));
  }
  return _mm256_add_epi32(_mm256_permute2x128_si256(four[0], four[1], 0x20),
                          _mm256_permute2x128_si256(four[0], four[1], 0x31));
}

template <int groups>
BITINFER_INLINE void gemv_groups_i2(const uint8_t* rows, int64_t n, const GroupActivation& a,
                                    int32_t* acc, int64_t acc_stride) {
  constexpr int kRows = 8, kQuarters = 4 / groups;  // of a group
  const __m256i low = _mm256_set1_epi8(3);
  const uint8_t* x[4];  // activations of each quarter
  for (int q = 0; q < 4; ++q)
    x[q] = reinterpret_cast<const uint8_t*>(a.codes) + q / kQuarters * a.stride + 64 * q;
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t here = n - first < kRows ? n - first : kRows;
    __m256i sum[groups][kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* row = rows + (first + (r < here ? r : 0)) * 64;
      prefetch(row + kBytesAhead);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes = load_bytes(row + 32 * half);
        const __m256i code[4] = {bytes, _mm256_srli_epi16(bytes, 2), _mm256_srli_epi16(bytes, 4),
                                 _mm256_srli_epi16(bytes, 6)};
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) {
          const __m256i products =
              _mm256_maddubs_epi16(_mm256_and_si256(code[q], low), load_bytes(x[q] + 32 * half));
          __m256i& to = sum[q / kQuarters][r];
          to = half || q % kQuarters ? _mm256_add_epi16(to, products) : products;
        }
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      const __m256i minus = _mm256_set1_epi32(a.sums[g * a.sum_stride]);
      int32_t sums[kRows];
      store_bytes(sums, _mm256_sub_epi32(sum_of_rows(sum[g]), minus));
      __builtin_memcpy(acc + g * acc_stride + first, sums, static_cast<size_t>(here) * 4);
    }
  }
}
