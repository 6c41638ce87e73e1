// Integer vocabulary of the sse41 row: 16 bytes. Included inside its anonymous namespace.
#pragma once

using ByteVec = __m128i;
using WordVec = __m128i;
constexpr int kPlaneRows = 4;

BITINFER_INLINE __m128i load_bytes(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
BITINFER_INLINE void store_bytes(void* p, __m128i a) {
  _mm_store_si128(static_cast<__m128i*>(p), a);
}
BITINFER_INLINE __m128i fill_bytes(int x) { return _mm_set1_epi8(static_cast<char>(x)); }
BITINFER_INLINE __m128i add_bytes(__m128i a, __m128i b) { return _mm_add_epi8(a, b); }
BITINFER_INLINE __m128i and_bytes(__m128i a, __m128i b) { return _mm_and_si128(a, b); }
BITINFER_INLINE __m128i or_bytes(__m128i a, __m128i b) { return _mm_or_si128(a, b); }
// -a where the control byte is negative, 0 where it is 0, else a.
BITINFER_INLINE __m128i negate_bytes(__m128i a, __m128i control) {
  return _mm_sign_epi8(a, control);
}

BITINFER_INLINE __m128i fill_words16(int16_t x) { return _mm_set1_epi16(x); }
BITINFER_INLINE __m128i add_words16(__m128i a, __m128i b) { return _mm_add_epi16(a, b); }
// As negate_bytes, on words.
BITINFER_INLINE __m128i negate_words16(__m128i a, __m128i control) {
  return _mm_sign_epi16(a, control);
}
BITINFER_INLINE __m128i subtract_words16(__m128i a, __m128i b) { return _mm_sub_epi16(a, b); }
template <int n>
BITINFER_INLINE __m128i shift_words_right(__m128i a) {
  return _mm_srli_epi16(a, n);
}
template <int n>
BITINFER_INLINE __m128i shift_words_right_signed(__m128i a) {
  return _mm_srai_epi16(a, n);
}
template <int n>
BITINFER_INLINE __m128i shift_words_left(__m128i a) {
  return _mm_slli_epi16(a, n);
}

// A 16-entry table for every 16 bytes of a vector; indices 0..15.
BITINFER_INLINE __m128i load_table(const uint8_t* p) { return load_bytes(p); }
BITINFER_INLINE __m128i look_up(__m128i table, __m128i index) {
  return _mm_shuffle_epi8(table, index);
}

// The bytes of 16 words of two tables in -128..127, one table behind the other.
BITINFER_INLINE void store_table_pair(const __m128i* low, const __m128i* high, uint8_t* tables) {
  store_bytes(tables, _mm_packs_epi16(low[0], low[1]));
  store_bytes(tables + 16, _mm_packs_epi16(high[0], high[1]));
}

// 32-bit words, for read_streams.
BITINFER_INLINE __m128i zero_words() { return _mm_setzero_si128(); }
BITINFER_INLINE __m128i load_words(const uint8_t* p) { return load_bytes(p); }
BITINFER_INLINE __m128i add_words(__m128i a, __m128i b) { return _mm_add_epi32(a, b); }
BITINFER_INLINE uint32_t fold_words(__m128i a) {
  a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4e));
  a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(a));
}

// out[i] = sum of the 32-bit lanes of v[i].
template <int count>
BITINFER_INLINE void sum_lanes(const WordVec* v, int32_t* out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<int32_t>(fold_words(v[i]));
}

// See head_planes.inl.h. Four products of at most 63 * 127 stay below 2^15.
BITINFER_INLINE __m128i add_products(__m128i sum, __m128i u0, __m128i x0, __m128i u1, __m128i x1) {
  const __m128i pairs = _mm_add_epi16(_mm_maddubs_epi16(u0, x0), _mm_maddubs_epi16(u1, x1));
  return _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
}

// GCC joins long integer sums as trees, which spills registers; a sum that passes here stays a
// chain.
BITINFER_INLINE void keep_order(__m128i& sum) { __asm__("" : "+x"(sum)); }

BITINFER_INLINE void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
