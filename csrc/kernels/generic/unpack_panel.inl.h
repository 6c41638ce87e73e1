// Packed tiles to panels of codes for the GEMM, with AVX2.
//
// A panel holds kPanelRows rows; a group of 16 of them is a run of quads of 64 bytes: 16 rows x 4
// columns, one byte a code c = w + 1. So a 32-bit lane is a row, and one broadcast of 4 activations
// meets 16 rows. Included inside the anonymous namespace of a row.
#pragma once

constexpr int kGroupRows = 16;
constexpr int kQuadBytes = 64;

BITINFER_INLINE __m256i load32(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
BITINFER_INLINE void store32(void* p, __m256i a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a);
}

// x: 8 rows of 8 dwords, transposed in place.
BITINFER_INLINE void transpose8x8(__m256i* x) {
  __m256i y[8], z[8];
  for (int i = 0; i < 8; i += 2) {
    y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      z[i + 2 * j] = _mm256_unpacklo_epi64(y[i + j], y[i + j + 2]);
      z[i + 2 * j + 1] = _mm256_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2x128_si256(z[i], z[i + 4], 0x20);
    x[i + 4] = _mm256_permute2x128_si256(z[i], z[i + 4], 0x31);
  }
}

// 32 i2 rows (tiles) of num_blocks K-blocks, row r at rows[r]; a group of the panel is group_bytes
// long.
BITINFER_INLINE void unpack_i2(const uint8_t* const* rows, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  const __m256i two_bits = _mm256_set1_epi8(3);
  for (int r = 0; r < 32; r += 8) {
    for (int64_t b = 0; b < num_blocks; ++b) {
      for (int part = 0; part < 64; part += 32) {  // 8 quads of each of the 4 column groups
        __m256i x[8];
        for (int i = 0; i < 8; ++i) x[i] = load32(rows[r + i] + 64 * b + part);
        transpose8x8(x);
        uint8_t* out = panel + (r / kGroupRows) * group_bytes + (64 * b + part / 4) * kQuadBytes +
                       r % kGroupRows * 4;
        for (int q = 0; q < 8; ++q) {
          for (int g = 0; g < 4; ++g) {
            store32(out + (16 * g + q) * kQuadBytes, _mm256_and_si256(x[q], two_bits));
            x[q] = _mm256_srli_epi16(x[q], 2);
          }
        }
      }
    }
  }
}

// Codes of 4 columns (planes) of 32 rows to a quad of two groups.
BITINFER_INLINE void store_quad(const __m256i* plane, uint8_t* quad, int64_t group_bytes) {
  const __m256i low01 = _mm256_unpacklo_epi8(plane[0], plane[1]);
  const __m256i low23 = _mm256_unpacklo_epi8(plane[2], plane[3]);
  const __m256i high01 = _mm256_unpackhi_epi8(plane[0], plane[1]);
  const __m256i high23 = _mm256_unpackhi_epi8(plane[2], plane[3]);
  const __m256i x[4] = {_mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
                        _mm256_unpacklo_epi16(high01, high23),
                        _mm256_unpackhi_epi16(high01, high23)};
  for (int i = 0; i < 4; i += 2) {
    store32(quad + 16 * i, _mm256_permute2x128_si256(x[i], x[i + 1], 0x20));
    store32(quad + group_bytes + 16 * i, _mm256_permute2x128_si256(x[i], x[i + 1], 0x31));
  }
}

// Codes of the 3 trits of magnitudes 0..13: the base-3 digits of 13 + m.
struct T3Codes {
  alignas(16) uint8_t digit[3][16];
};
constexpr T3Codes make_t3_codes() {
  T3Codes t{};
  for (int m = 0; m < 14; ++m) {
    t.digit[0][m] = static_cast<uint8_t>((13 + m) / 9);
    t.digit[1][m] = static_cast<uint8_t>((13 + m) / 3 % 3);
    t.digit[2][m] = static_cast<uint8_t>((13 + m) % 3);
  }
  return t;
}
constexpr T3Codes kT3Codes = make_t3_codes();

// One t3 tile (32 rows).
BITINFER_INLINE void unpack_t3(const uint8_t* tile, int64_t num_blocks, uint8_t* panel,
                               int64_t group_bytes) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i three = _mm256_set1_epi8(3);
  for (int64_t b = 0; b < num_blocks; ++b, tile += 160, panel += 6 * kQuadBytes) {
    __m256i plane[24];
    __m256i sign = load32(tile + 128);
    for (int j = 0; j < 8; ++j) {
      const __m256i pair = load32(tile + 32 * (j / 2));
      const __m256i magnitude = _mm256_and_si256(j % 2 ? _mm256_srli_epi16(pair, 4) : pair, nibble);
      const __m256i minus = _mm256_cmpgt_epi8(_mm256_setzero_si256(), sign);
      sign = _mm256_add_epi8(sign, sign);
      for (int i = 0; i < 3; ++i) {
        const __m128i digits = _mm_load_si128(reinterpret_cast<const __m128i*>(kT3Codes.digit[i]));
        const __m256i c = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(digits), magnitude);
        // Negative: 2 - c = ~c + 3.
        plane[3 * j + i] =
            _mm256_add_epi8(_mm256_xor_si256(c, minus), _mm256_and_si256(minus, three));
      }
    }
    for (int q = 0; q < 6; ++q) store_quad(plane + 4 * q, panel + q * kQuadBytes, group_bytes);
  }
}
