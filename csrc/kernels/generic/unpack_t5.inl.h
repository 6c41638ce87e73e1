// t5 tiles to panels of codes (unpack_panel.inl.h) with AVX2. Included inside the anonymous
// namespace of a row.
#pragma once

// 5 trits: u = 121 + v in 0..242 has the codes as base-3 digits. x = u + ((55 u + 1023) >> 10)
// scales u to 8 bits of fraction such that 3 x = 256 c + (rest mod 256) gives them one by one (all
// 243 cases checked by the tests).
BITINFER_INLINE void t5_planes(const uint8_t* bytes, __m256i* plane) {
  const __m256i packed = load32(bytes);
  const __m256i minus = _mm256_cmpgt_epi8(_mm256_setzero_si256(), packed);
  const __m256i magnitude = _mm256_and_si256(packed, _mm256_set1_epi8(127));
  const __m256i v = _mm256_sub_epi8(_mm256_xor_si256(magnitude, minus), minus);
  const __m256i u = _mm256_add_epi8(v, _mm256_set1_epi8(121));
  __m256i carry[2] = {_mm256_unpacklo_epi8(u, _mm256_setzero_si256()),
                      _mm256_unpackhi_epi8(u, _mm256_setzero_si256())};
  for (__m256i& c : carry) {
    c = _mm256_mullo_epi16(c, _mm256_set1_epi16(55));
    c = _mm256_srli_epi16(_mm256_add_epi16(c, _mm256_set1_epi16(1023)), 10);
  }
  __m256i x = _mm256_add_epi8(u, _mm256_packus_epi16(carry[0], carry[1]));
  // With 128 subtracted (mod 256) the comparisons may be signed, and tripling stays tripling.
  x = _mm256_xor_si256(x, _mm256_set1_epi8(-128));
  for (int i = 0; i < 5; ++i) {
    const __m256i c1 = _mm256_cmpgt_epi8(x, _mm256_set1_epi8(85 - 128));
    const __m256i c2 = _mm256_cmpgt_epi8(x, _mm256_set1_epi8(170 - 128));
    plane[i] = _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(c1, c2));
    x = _mm256_add_epi8(x, _mm256_add_epi8(x, x));
  }
}

// One t5 tile (64 rows), 4 K-blocks = 5 quads at a time; columns beyond the last block get any
// codes (their activations are zero).
BITINFER_INLINE void unpack_t5(const uint8_t* tile, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  for (int64_t b = 0; b < num_blocks; b += 4, tile += 4 * 64, panel += 5 * kQuadBytes) {
    const int blocks = num_blocks - b < 4 ? static_cast<int>(num_blocks - b) : 4;
    for (int half = 0; half < 2; ++half) {
      __m256i plane[20];
      for (int i = 0; i < 4; ++i)
        t5_planes(tile + 64 * (i < blocks ? i : 0) + 32 * half, plane + 5 * i);
      for (int q = 0; q < 5; ++q) {
        store_quad(plane + 4 * q, panel + 2 * half * group_bytes + q * kQuadBytes, group_bytes);
      }
    }
  }
}
