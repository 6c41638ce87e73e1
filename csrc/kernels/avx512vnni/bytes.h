// Bytes of the AVX-512 rows, after words.h and dot_words.h, as generic/head_planes.inl.h and
// generic/ternary_gemv_addsub_b1.inl.h want them.
#pragma once

using ByteVec = __m512i;
constexpr int kPlaneRows = 2;

BITINFER_INLINE __m512i load_bytes(const uint8_t* p) { return load64(p); }
BITINFER_INLINE void store_bytes(void* p, __m512i a) { _mm512_store_si512(p, a); }
BITINFER_INLINE __m512i fill_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
BITINFER_INLINE __m512i add_bytes(__m512i a, __m512i b) { return _mm512_add_epi8(a, b); }
BITINFER_INLINE __m512i and_bytes(__m512i a, __m512i b) { return _mm512_and_si512(a, b); }
BITINFER_INLINE __m512i or_bytes(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
template <int n>
BITINFER_INLINE __m512i shift_words_right(__m512i a) {
  return _mm512_srli_epi16(a, n);
}
template <int n>
BITINFER_INLINE __m512i shift_words_left(__m512i a) {
  return _mm512_slli_epi16(a, n);
}

BITINFER_INLINE __m512i fill_words16(int16_t x) { return _mm512_set1_epi16(x); }
BITINFER_INLINE __m512i add_words16(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
BITINFER_INLINE __m512i subtract_words16(__m512i a, __m512i b) { return _mm512_sub_epi16(a, b); }

// A 16-entry table for every 16 bytes of a vector; indices 0..15.
BITINFER_INLINE __m512i load_table(const uint8_t* p) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
BITINFER_INLINE __m512i look_up(__m512i table, __m512i index) {
  return _mm512_shuffle_epi8(table, index);
}

BITINFER_INLINE void keep_order(__m512i& sum) { keep_in_place(sum); }
BITINFER_INLINE __m512i add_products(__m512i sum, __m512i u0, __m512i x0, __m512i u1, __m512i x1) {
  return dot_add(dot_add(sum, u0, x0), u1, x1);
}
