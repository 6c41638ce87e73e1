// t5 by additions only: 128-entry table look-ups (vpermi2b). Included inside the avx512vbmi row's
// anonymous namespace.
//
// A group of 5 activations (a K-block) has the sums T[m] = T(digits of m), m = 0..121, in
// -640..640, stored as
//   T = 32 h + l,   l in -16..15, h in -20..20
// in two int8 tables of 128 bytes. One 64-byte load holds a packed byte of each of 64 rows;
// vpermi2b ignores bit 7, which as a mask negates both bytes; 6 K-blocks add up in int8 (6 * 20 =
// 120) before they widen.
//
// Widening takes no shuffle: bytes biased by 128 are added as 16-bit words u_even + 256 u_odd, mod
// 2^16, and u_odd once more by itself; even = all - 256 odd. 255 * 256 < 2^16 bounds a run at 256
// widenings.
#pragma once

constexpr int64_t kT5TableBytes = 256;  // 128 bytes l, then 128 bytes h
constexpr int64_t kT5WidenBlocks = 6;
constexpr int64_t kT5RunBlocks = 256 * kT5WidenBlocks;

// Sums of a run of K-blocks of one tile: biased bytes as words, plane 0 l, plane 1 h.
struct T5Sums {
  __m512i all[2];
  __m512i odd[2];
};

BITINFER_INLINE __m512i negate_where(__mmask64 mask, __m512i a) {
  return _mm512_mask_sub_epi8(a, mask, _mm512_setzero_si512(), a);
}

// Adds `blocks` <= 6 K-blocks of every lane.
template <int count>
BITINFER_INLINE void t5_add_blocks(const uint8_t** tile, const uint8_t* tables, int64_t blocks,
                                   T5Sums* sums) {
  __m512i low[count], high[count];
  for (int r = 0; r < count; ++r) low[r] = high[r] = _mm512_set1_epi8(-128);
  for (int64_t b = 0; b < blocks; ++b, tables += kT5TableBytes) {
    const __m512i low0 = load64(tables), low1 = load64(tables + 64);
    const __m512i high0 = load64(tables + 128), high1 = load64(tables + 192);
    for (int r = 0; r < count; ++r, ++tile) {
      prefetch(*tile + prefetch_ahead<count>(r));
      const __m512i packed = load64(*tile);
      const __mmask64 minus = _mm512_movepi8_mask(packed);
      const __m512i l = _mm512_permutex2var_epi8(low0, packed, low1);
      const __m512i h = _mm512_permutex2var_epi8(high0, packed, high1);
      low[r] = _mm512_add_epi8(low[r], negate_where(minus, l));
      high[r] = _mm512_add_epi8(high[r], negate_where(minus, h));
      *tile += kT5BlockBytes;
    }
    tile -= count;
  }
  for (int r = 0; r < count; ++r) {
    sums[r].all[0] = _mm512_add_epi16(sums[r].all[0], low[r]);
    sums[r].odd[0] = _mm512_add_epi16(sums[r].odd[0], _mm512_srli_epi16(low[r], 8));
    sums[r].all[1] = _mm512_add_epi16(sums[r].all[1], high[r]);
    sums[r].odd[1] = _mm512_add_epi16(sums[r].odd[1], _mm512_srli_epi16(high[r], 8));
  }
}

// acc[0..7] (+)= 32 h + l, from int16.
BITINFER_INLINE void t5_store8(__m128i low, __m128i high, bool first, int32_t* acc) {
  __m256i* out = reinterpret_cast<__m256i*>(acc);
  const __m256i h32 = _mm256_slli_epi32(_mm256_cvtepi16_epi32(high), 5);
  const __m256i sum = _mm256_add_epi32(h32, _mm256_cvtepi16_epi32(low));
  _mm256_storeu_si256(out, first ? sum : _mm256_add_epi32(_mm256_loadu_si256(out), sum));
}

// The 64 sums of a tile; bias = 128 * number of widenings.
BITINFER_INLINE void t5_store(const T5Sums& sums, int16_t bias, bool first, int32_t* acc) {
  __m512i rows[2][2];  // plane; rows 16 i + 0..7 of the 128-bit lane i, then rows 16 i + 8..15
  for (int plane = 0; plane < 2; ++plane) {
    const __m512i shifted = _mm512_slli_epi16(sums.odd[plane], 8);
    const __m512i even =
        _mm512_sub_epi16(_mm512_sub_epi16(sums.all[plane], shifted), _mm512_set1_epi16(bias));
    const __m512i odd = _mm512_sub_epi16(sums.odd[plane], _mm512_set1_epi16(bias));
    rows[plane][0] = _mm512_unpacklo_epi16(even, odd);
    rows[plane][1] = _mm512_unpackhi_epi16(even, odd);
  }
  alignas(64) __m128i low[2][4], high[2][4];
  for (int half = 0; half < 2; ++half) {
    _mm512_store_si512(low[half], rows[0][half]);
    _mm512_store_si512(high[half], rows[1][half]);
  }
  for (int lane = 0; lane < 4; ++lane) {
    for (int half = 0; half < 2; ++half) {
      t5_store8(low[half][lane], high[half][lane], first, acc + 16 * lane + 8 * half);
    }
  }
}

template <int count>
BITINFER_INLINE void t5_lanes(const LaneGroup<count>& lanes, int64_t num_blocks,
                              const uint8_t* tables) {
  const uint8_t* tile[count];
  for (int r = 0; r < count; ++r) tile[r] = lanes.tile[r];
  bool first = true;
  for (int64_t left = num_blocks; left > 0; first = false) {
    T5Sums sums[count];
    for (int r = 0; r < count; ++r) {
      for (int plane = 0; plane < 2; ++plane)
        sums[r].all[plane] = sums[r].odd[plane] = _mm512_setzero_si512();
    }
    int16_t bias = 0;
    for (int64_t end = left < kT5RunBlocks ? 0 : left - kT5RunBlocks; left > end;
         left -= kT5WidenBlocks) {
      const int64_t blocks = left - end < kT5WidenBlocks ? left - end : kT5WidenBlocks;
      t5_add_blocks<count>(tile, tables, blocks, sums);
      tables += kT5WidenBlocks * kT5TableBytes;
      bias = static_cast<int16_t>(bias + 128);
    }
    for (int r = 0; r < count; ++r) t5_store(sums[r], bias, first, lanes.acc[r]);
  }
}
