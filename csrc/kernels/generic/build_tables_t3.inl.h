// The t3 look-up tables of ternary_gemv_addsub_t3.inl.h, with SSE4.1, additions only.
// Included inside the anonymous namespace of a row.
#pragma once

// Trits of m = 0..13 (most significant first, entries 14 and 15 zero), as controls for psignw.
struct T3Digits {
  alignas(16) int16_t digit[3][16];
};

constexpr T3Digits make_t3_digits() {
  T3Digits t{};
  for (int m = 0; m <= 13; ++m) {
    for (int i = 2, v = m; i >= 0; --i) {
      const int d = (v + 1) % 3 - 1;
      t.digit[i][m] = static_cast<int16_t>(d);
      v = (v - d) / 3;
    }
  }
  return t;
}
constexpr T3Digits kT3Digits = make_t3_digits();

// The sums of 8 entries as T = 31 h + l: from T = 32 h' + l', l' in -16..15, it is l = l' + h',
// brought to -15..15.
BITINFER_INLINE void t3_split(const int8_t* codes, int half, __m128i* low, __m128i* high) {
  __m128i sum = _mm_setzero_si128();
  for (int i = 0; i < 3; ++i) {
    const __m128i* digit = reinterpret_cast<const __m128i*>(kT3Digits.digit[i]);
    sum =
        _mm_add_epi16(sum, _mm_sign_epi16(_mm_set1_epi16(codes[i]), _mm_load_si128(digit + half)));
  }
  const __m128i h = _mm_srai_epi16(_mm_add_epi16(sum, _mm_set1_epi16(16)), 5);
  const __m128i l = _mm_add_epi16(_mm_sub_epi16(sum, _mm_slli_epi16(h, 5)), h);
  const __m128i above = _mm_cmpgt_epi16(l, _mm_set1_epi16(15));
  const __m128i below = _mm_cmpgt_epi16(_mm_set1_epi16(-15), l);
  const __m128i radix = _mm_set1_epi16(31);
  *low = _mm_add_epi16(_mm_sub_epi16(l, _mm_and_si128(above, radix)), _mm_and_si128(below, radix));
  *high = _mm_add_epi16(_mm_sub_epi16(h, above), below);
}

BITINFER_INLINE void build_t3_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  codes += (block_begin << 4) + (block_begin << 3);  // 24 columns a K-block
  tables += block_begin << 8;
  static_assert(kT3TableBytes == 256, "the shift above");
  for (int64_t b = block_begin; b < block_end; ++b) {
    for (int j = 0; j < kT3Groups; ++j, codes += 3, tables += 32) {
      __m128i low[2], high[2];
      for (int half = 0; half < 2; ++half) t3_split(codes, half, &low[half], &high[half]);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(tables), _mm_packs_epi16(low[0], low[1]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(tables + 16), _mm_packs_epi16(high[0], high[1]));
    }
  }
}
