// t5 tiles to panels of codes (unpack_panel.inl.h) by 128-entry table look-ups: the index ignores
// bit 7, which as a mask turns a code c into 2 - c. Included inside the anonymous namespace of a
// row.
#pragma once

struct T5Codes {
  alignas(64) uint8_t digit[5][128];
};

// The codes of the 5 trits of magnitudes 0..121: the base-3 digits of 121 + m, highest first.
constexpr T5Codes make_t5_codes() {
  T5Codes t{};
  for (int m = 0; m < 122; ++m) {
    for (int i = 4, u = 121 + m; i >= 0; --i, u /= 3) t.digit[i][m] = static_cast<uint8_t>(u % 3);
  }
  return t;
}
constexpr T5Codes kT5Codes = make_t5_codes();

// Codes of 4 columns (planes) of 64 rows to a quad of four groups.
BITINFER_INLINE void store_quad_64(const __m512i* plane, uint8_t* quad, int64_t group_bytes) {
  const __m512i low01 = _mm512_unpacklo_epi8(plane[0], plane[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(plane[2], plane[3]);
  const __m512i high01 = _mm512_unpackhi_epi8(plane[0], plane[1]);
  const __m512i high23 = _mm512_unpackhi_epi8(plane[2], plane[3]);
  // x[i]: rows 4 i .. 4 i + 3 of every group, a 128-bit lane each; then transposed.
  const __m512i x[4] = {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
                        _mm512_unpacklo_epi16(high01, high23),
                        _mm512_unpackhi_epi16(high01, high23)};
  const __m512i front[2] = {_mm512_shuffle_i32x4(x[0], x[1], 0x44),
                            _mm512_shuffle_i32x4(x[2], x[3], 0x44)};
  const __m512i back[2] = {_mm512_shuffle_i32x4(x[0], x[1], 0xee),
                           _mm512_shuffle_i32x4(x[2], x[3], 0xee)};
  _mm512_storeu_si512(quad, _mm512_shuffle_i32x4(front[0], front[1], 0x88));
  _mm512_storeu_si512(quad + group_bytes, _mm512_shuffle_i32x4(front[0], front[1], 0xdd));
  _mm512_storeu_si512(quad + 2 * group_bytes, _mm512_shuffle_i32x4(back[0], back[1], 0x88));
  _mm512_storeu_si512(quad + 3 * group_bytes, _mm512_shuffle_i32x4(back[0], back[1], 0xdd));
}

// One tile (64 rows), 4 K-blocks = 5 quads at a time; columns beyond the last block get any codes
// (their activations are zero).
BITINFER_INLINE void unpack_t5(const uint8_t* tile, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  const __m512i two = _mm512_set1_epi8(2);
  for (int64_t b = 0; b < num_blocks; b += 4, tile += 4 * 64, panel += 5 * kQuadBytes) {
    const int blocks = num_blocks - b < 4 ? static_cast<int>(num_blocks - b) : 4;
    __m512i plane[20];
    for (int i = 0; i < 4; ++i) {
      const __m512i packed = load64(tile + 64 * (i < blocks ? i : 0));
      const __mmask64 minus = _mm512_movepi8_mask(packed);
      for (int d = 0; d < 5; ++d) {
        const uint8_t* digits = kT5Codes.digit[d];
        const __m512i c = _mm512_permutex2var_epi8(load64(digits), packed, load64(digits + 64));
        plane[5 * i + d] = _mm512_mask_sub_epi8(c, minus, two, c);
      }
    }
    for (int q = 0; q < 5; ++q) store_quad_64(plane + 4 * q, panel + q * kQuadBytes, group_bytes);
  }
}
