// Integer vocabulary of the AVX-512 rows: 64 bytes. Included inside their anonymous namespaces.
#pragma once

using WordVec = __m512i;

BITINFER_INLINE __m512i load64(const void* p) { return _mm512_loadu_si512(p); }

BITINFER_INLINE __m512i zero_words() { return _mm512_setzero_si512(); }
BITINFER_INLINE __m512i load_words(const uint8_t* p) { return load64(p); }
BITINFER_INLINE __m512i add_words(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
BITINFER_INLINE uint32_t fold_words(__m512i a) {
  return static_cast<uint32_t>(_mm512_reduce_add_epi32(a));
}

// Holds a sum in the register it has: GCC 12 otherwise copies every sum of a large array once a
// step.
BITINFER_INLINE void keep_in_place(__m512i& sum) { __asm__("" : "+v"(sum)); }

BITINFER_INLINE void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
