// Integer vocabulary of the AVX-512 rows: 64 bytes. Included inside their anonymous namespaces.
#pragma once

using WordVec = __m512i;

BITINFER_INLINE __m512i load64(const void* p) { return _mm512_loadu_si512(p); }

BITINFER_INLINE __m512i zero_words() { return _mm512_setzero_si512(); }
BITINFER_INLINE __m512i load_words(const uint8_t* p) { return load64(p); }
BITINFER_INLINE __m512i add_words(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
// mod 2^32. Not _mm512_reduce_add_epi32: its last addition may be one of ints, which must not
// overflow.
BITINFER_INLINE uint32_t fold_words(__m512i a) {
  const __m256i eight =
      _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1))));
}

// Holds a sum in the register it has: GCC 12 otherwise copies every sum of a large array once a
// step.
BITINFER_INLINE void keep_in_place(__m512i& sum) { __asm__("" : "+v"(sum)); }

BITINFER_INLINE void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
