// b1 tiles to panels of codes (unpack_panel.inl.h) with AVX2: each row's byte four times, then its
// bits one to a byte, as the code 0 or 2. Included inside the anonymous namespace of a row.
#pragma once

struct B1Spread {
  alignas(32) uint8_t row[2][32];  // that each byte of a half quad is to hold, of 16
  alignas(32) uint8_t bit[2][32];  // of a quad's columns; of the first 4, of bytes doubled
};

constexpr B1Spread make_b1_spread() {
  B1Spread t{};
  for (int i = 0; i < 32; ++i) {
    for (int half = 0; half < 2; ++half) t.row[half][i] = static_cast<uint8_t>(8 * half + i / 4);
    t.bit[0][i] = static_cast<uint8_t>(2 << i % 4);
    t.bit[1][i] = static_cast<uint8_t>(16 << i % 4);
  }
  return t;
}
constexpr B1Spread kB1Spread = make_b1_spread();

// One tile (64 rows).
BITINFER_INLINE void unpack_b1(const uint8_t* tile, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  const __m256i two = _mm256_set1_epi8(2);
  const __m256i first = load32(kB1Spread.bit[0]), second = load32(kB1Spread.bit[1]);
  for (int64_t b = 0; b < num_blocks; ++b, panel += 2 * kQuadBytes) {
    uint8_t* quads = panel;
    for (int group = 0; group < 4; ++group, tile += kGroupRows, quads += group_bytes) {
      const __m128i rows = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile));
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes =
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(rows), load32(kB1Spread.row[half]));
        const __m256i doubled = _mm256_add_epi8(bytes, bytes);
        store32(quads + 32 * half, _mm256_min_epu8(_mm256_and_si256(doubled, first), two));
        store32(quads + kQuadBytes + 32 * half,
                _mm256_min_epu8(_mm256_and_si256(bytes, second), two));
      }
    }
  }
}
