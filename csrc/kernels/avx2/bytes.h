// Integer vocabulary of the avx2 row: 32 bytes. Included inside its anonymous namespace.
#pragma once

using ByteVec = __m256i;
using WordVec = __m256i;
constexpr int kPlaneRows = 4;

BITINFER_INLINE __m256i load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
BITINFER_INLINE void store_bytes(void* p, __m256i a) {
  _mm256_store_si256(static_cast<__m256i*>(p), a);
}
BITINFER_INLINE __m256i fill_bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
BITINFER_INLINE __m256i add_bytes(__m256i a, __m256i b) { return _mm256_add_epi8(a, b); }
BITINFER_INLINE __m256i and_bytes(__m256i a, __m256i b) { return _mm256_and_si256(a, b); }
BITINFER_INLINE __m256i or_bytes(__m256i a, __m256i b) { return _mm256_or_si256(a, b); }
// -a where the control byte is negative, 0 where it is 0, else a.
BITINFER_INLINE __m256i negate_bytes(__m256i a, __m256i control) {
  return _mm256_sign_epi8(a, control);
}

BITINFER_INLINE __m256i fill_words16(int16_t x) { return _mm256_set1_epi16(x); }
BITINFER_INLINE __m256i add_words16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
// As negate_bytes, on words.
BITINFER_INLINE __m256i negate_words16(__m256i a, __m256i control) {
  return _mm256_sign_epi16(a, control);
}
BITINFER_INLINE __m256i subtract_words16(__m256i a, __m256i b) { return _mm256_sub_epi16(a, b); }
template <int n>
BITINFER_INLINE __m256i shift_words_right(__m256i a) {
  return _mm256_srli_epi16(a, n);
}
template <int n>
BITINFER_INLINE __m256i shift_words_right_signed(__m256i a) {
  return _mm256_srai_epi16(a, n);
}
template <int n>
BITINFER_INLINE __m256i shift_words_left(__m256i a) {
  return _mm256_slli_epi16(a, n);
}

// A 16-entry table for every 16 bytes of a vector; indices 0..15.
BITINFER_INLINE __m256i load_table(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
BITINFER_INLINE __m256i look_up(__m256i table, __m256i index) {
  return _mm256_shuffle_epi8(table, index);
}

// The bytes of 16 words of two tables in -128..127, one table behind the other.
BITINFER_INLINE void store_table_pair(const __m256i* low, const __m256i* high, uint8_t* tables) {
  store_bytes(tables, _mm256_permute4x64_epi64(_mm256_packs_epi16(*low, *high), 0xd8));
}

// 32-bit words, for read_streams.
BITINFER_INLINE __m256i zero_words() { return _mm256_setzero_si256(); }
BITINFER_INLINE __m256i load_words(const uint8_t* p) { return load_bytes(p); }
BITINFER_INLINE __m256i add_words(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
BITINFER_INLINE uint32_t fold_words(__m256i a) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(x));
}

// out[i] = sum of the 32-bit lanes of v[i].
template <int count>
BITINFER_INLINE void sum_lanes(const WordVec* v, int32_t* out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<int32_t>(fold_words(v[i]));
}

// GCC joins long integer sums as trees, which spills registers; a sum that passes here stays a
// chain.
BITINFER_INLINE void keep_order(__m256i& sum) { __asm__("" : "+x"(sum)); }

BITINFER_INLINE void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
