// Sums of groups of columns within an i2 K-block (kernel_table.h: GemvGroupsFn) by vpdpbusd, 16
// rows at a time. Included inside the anonymous namespace of the avx512vnni row.
//
// A quarter of a block (64 columns) leaves 16 lanes of 4 columns each; a group has one or two
// quarters, a lane at most 2 * 8 * 128 in magnitude. The lanes of 16 rows become one vector of 16
// sums by packing to int16 and adding pairs: 2 * 128 * 128 at most, and only as -32768.
#pragma once

// Pairs of int16 sums of a and b, per 128-bit lane those of a and then of b.
BITINFER_INLINE __m512i add_pairs(__m512i a, __m512i b) {
  return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
}

// Lane r: the sum of the 16 lanes of v[r].
BITINFER_INLINE __m512i sum_of_rows(const __m512i* v) {
  __m512i four[4];  // rows 4 i..4 i + 3 in the lanes of each 128 bits
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i* r = v + 4 * i;
    four[i] = add_pairs(add_pairs(r[0], r[1]), add_pairs(r[2], r[3]));
  }
  __m512i eight[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512i a = four[2 * i], b = four[2 * i + 1];
    eight[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  }
  return _mm512_add_epi32(_mm512_shuffle_i32x4(eight[0], eight[1], 0x88),
                          _mm512_shuffle_i32x4(eight[0], eight[1], 0xdd));
}

template <int groups>
BITINFER_INLINE void gemv_groups_i2(const uint8_t* rows, int64_t n, const GroupActivation& a,
                                    int32_t* acc, int64_t acc_stride) {
  constexpr int kRows = 16, kQuarters = 4 / groups;  // of a group
  const __m512i low = _mm512_set1_epi8(3), zero = _mm512_setzero_si512();
  __m512i x[4];
  for (int q = 0; q < 4; ++q) x[q] = load64(a.codes + q / kQuarters * a.stride + 64 * q);
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t here = n - first < kRows ? n - first : kRows;
    __m512i sum[groups][kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* row = rows + (first + (r < here ? r : 0)) * 64;
      prefetch(row + kBytesAhead);
      const __m512i bytes = load64(row);
      const __m512i code[4] = {bytes, _mm512_srli_epi16(bytes, 2), _mm512_srli_epi16(bytes, 4),
                               _mm512_srli_epi16(bytes, 6)};
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        __m512i& to = sum[q / kQuarters][r];
        to = _mm512_dpbusd_epi32(q % kQuarters ? to : zero, _mm512_and_si512(code[q], low), x[q]);
      }
    }
    const auto exists = static_cast<__mmask16>((1u << here) - 1);
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      const __m512i minus = _mm512_set1_epi32(a.sums[g * a.sum_stride]);
      _mm512_mask_storeu_epi32(acc + g * acc_stride + first, exists,
                               _mm512_sub_epi32(sum_of_rows(sum[g]), minus));
    }
  }
}
