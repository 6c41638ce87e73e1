// The t5 look-up tables of ternary_gemv_t5.inl.h, additions only: 36 vector operations a table.
// Included inside the avx512vbmi row's anonymous namespace.
//
// m = 27 p + q with p = 3 w0 + w1 in 0..4 and q = 9 w2 + 3 w3 + w4 in -13..13: one register of 32
// words holds the 27 sums of (w2, w3, w4), plus 16 for rounding, and the 5 sums of (w0, w1); two
// vpermw and an addition give 32 entries.
#pragma once

struct T5Patterns {
  alignas(64) int16_t source[3][32];  // column whose activation step i adds to a lane
  uint32_t plus[3], minus[3];         // lanes with a trit of 1, -1 in step i
  alignas(
      64) int16_t q_lane[4][32];  // lane of q, of p for every entry, in the order that packs undoes
  alignas(64) int16_t p_lane[4][32];
  alignas(64) int16_t rounding[32];
};

constexpr int t5_trit(int v, int place) {  // place 0: least significant
  int d = 0;
  for (; place >= 0; --place) {
    d = (v + 363 + 1) % 3 - 1;
    v = (v - d) / 3;
  }
  return d;
}

constexpr T5Patterns make_t5_patterns() {
  T5Patterns t{};
  for (int lane = 0; lane < 32; ++lane) {
    const bool is_q = lane < 27;
    t.rounding[lane] = is_q ? 16 : 0;
    for (int i = 0; i < (is_q ? 3 : 2); ++i) {
      const int d = is_q ? t5_trit(lane - 13, 2 - i) : t5_trit(lane - 27, 1 - i);
      t.source[i][lane] = static_cast<int16_t>(is_q ? 2 + i : i);
      if (d > 0) t.plus[i] |= 1u << lane;
      if (d < 0) t.minus[i] |= 1u << lane;
    }
  }
  // vpackswb joins, per 128-bit lane, 8 words of one vector and 8 of the next.
  for (int v = 0; v < 4; ++v) {
    for (int i = 0; i < 32; ++i) {
      const int m = 64 * (v / 2) + 16 * (i / 8) + 8 * (v % 2) + i % 8;
      const int p = m < 122 ? (m + 13) / 27 : 0;
      t.q_lane[v][i] = static_cast<int16_t>(m < 122 ? m - 27 * p + 13 : 13);
      t.p_lane[v][i] = static_cast<int16_t>(27 + p);
    }
  }
  return t;
}
constexpr T5Patterns kT5Patterns = make_t5_patterns();

// One table from the activations in words 0..4.
BITINFER_INLINE void build_t5_table(__m512i words, uint8_t* table) {
  const T5Patterns& t = kT5Patterns;
  __m512i parts = load64(t.rounding);
  for (int i = 0; i < 3; ++i) {
    const __m512i x = _mm512_permutexvar_epi16(load64(t.source[i]), words);
    parts = _mm512_mask_add_epi16(parts, t.plus[i], parts, x);
    parts = _mm512_mask_sub_epi16(parts, t.minus[i], parts, x);
  }
  __m512i low[4], high[4];
  for (int v = 0; v < 4; ++v) {
    const __m512i sum = _mm512_add_epi16(_mm512_permutexvar_epi16(load64(t.q_lane[v]), parts),
                                         _mm512_permutexvar_epi16(load64(t.p_lane[v]), parts));
    high[v] = _mm512_srai_epi16(sum, 5);
    low[v] = _mm512_and_si512(sum, _mm512_set1_epi16(31));
  }
  for (int half = 0; half < 2; ++half) {
    const __m512i l = _mm512_packs_epi16(low[2 * half], low[2 * half + 1]);
    const __m512i h = _mm512_packs_epi16(high[2 * half], high[2 * half + 1]);
    _mm512_store_si512(table + 64 * half, _mm512_sub_epi8(l, _mm512_set1_epi8(16)));
    _mm512_store_si512(table + 128 + 64 * half, h);
  }
}

// Six K-blocks (30 columns) a load; the words then move down by 5 for each table.
BITINFER_INLINE void build_t5_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  codes += (block_begin << 2) + block_begin;
  tables += block_begin << 8;
  static_assert(kT5TableBytes == 256, "the shift above");
  alignas(64) int16_t down5[32] = {};
  for (int16_t i = 0; i < 27; ++i) down5[i] = static_cast<int16_t>(i + 5);
  for (int64_t left = block_end - block_begin; left > 0; left -= 6, codes += 30) {
    const int blocks = left < 6 ? static_cast<int>(left) : 6;
    const uint32_t valid = (1u << ((blocks << 2) + blocks)) - 1;
    __m512i words = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(valid, codes));
    for (int b = 0; b < blocks; ++b, tables += kT5TableBytes) {
      build_t5_table(words, tables);
      words = _mm512_permutexvar_epi16(load64(down5), words);
    }
  }
}
