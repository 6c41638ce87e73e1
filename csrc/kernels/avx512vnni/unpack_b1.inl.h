// b1 tiles to panels of codes (unpack_panel.inl.h): each row's byte four times, then its bits one
// to a byte, as the code 0 or 2. Included inside the anonymous namespace of a row, after words.h.
#pragma once

struct B1Spread {
  alignas(64) uint8_t row[64];     // of 16, that each byte of a quad is to hold
  alignas(64) uint8_t bit[2][64];  // of a quad's columns
};

constexpr B1Spread make_b1_spread() {
  B1Spread t{};
  for (int i = 0; i < 64; ++i) {
    t.row[i] = static_cast<uint8_t>(i / 4);
    t.bit[0][i] = static_cast<uint8_t>(1 << i % 4);
    t.bit[1][i] = static_cast<uint8_t>(16 << i % 4);
  }
  return t;
}
constexpr B1Spread kB1Spread = make_b1_spread();

// One tile (64 rows).
BITINFER_INLINE void unpack_b1(const uint8_t* tile, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  const __m512i two = _mm512_set1_epi8(2);
  const __m512i row = load64(kB1Spread.row);
  for (int64_t b = 0; b < num_blocks; ++b, panel += 2 * kQuadBytes) {
    prefetch(tile + kBytesAhead);
    uint8_t* quads = panel;
    for (int group = 0; group < 4; ++group, tile += kGroupRows, quads += group_bytes) {
      const __m128i rows = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile));
      const __m512i bytes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(rows), row);
      for (int q = 0; q < 2; ++q) {
        const __mmask64 plus = _mm512_test_epi8_mask(bytes, load64(kB1Spread.bit[q]));
        _mm512_storeu_si512(quads + q * kQuadBytes, _mm512_maskz_mov_epi8(plus, two));
      }
    }
  }
}
