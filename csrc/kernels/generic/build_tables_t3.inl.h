// The t3 look-up tables of ternary_gemv_addsub_t3.inl.h, additions only, on the ByteVec vocabulary
// (16 or 32 bytes) of the row. Included inside its anonymous namespace.
#pragma once

// Trits of m = 0..13 (most significant first, entries 14 and 15 zero), as controls for psignw.
struct T3Digits {
  alignas(32) int16_t digit[3][16];
};

constexpr T3Digits make_t3_digits() {
  T3Digits t{};
  for (int m = 0; m <= 13; ++m) {
    for (int i = 2, v = m; i >= 0; --i) {
      const int d = (v + 1) % 3 - 1;
      t.digit[i][m] = static_cast<int16_t>(d);
      v = (v - d) / 3;
    }
  }
  return t;
}
constexpr T3Digits kT3Digits = make_t3_digits();

// The sums T of the entries from `first` on, as words that one vector holds, split as T = 31 h + l.
// h = T / 31 rounded to nearest = (33 T + 512) >> 10 for every |T| <= 384: 33/1024 is 1/31 -
// 1/31744, so the error stays below 0.0122, and no T is nearer than 0.0161 to the half.
BITINFER_INLINE void t3_split(const int16_t* codes, int first, ByteVec* low, ByteVec* high) {
  ByteVec sum = fill_words16(0);
  for (int i = 0; i < 3; ++i) {
    const void* digit = kT3Digits.digit[i] + first;
    sum = add_words16(sum, negate_words16(fill_words16(codes[i]),
                                          load_bytes(static_cast<const uint8_t*>(digit))));
  }
  const ByteVec times_33 = add_words16(sum, shift_words_left<5>(sum));
  const ByteVec h = shift_words_right_signed<10>(add_words16(times_33, fill_words16(512)));
  *low = subtract_words16(add_words16(sum, h), shift_words_left<5>(h));
  *high = h;
}

BITINFER_INLINE void build_t3_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  constexpr int kVecs = 32 / static_cast<int>(sizeof(ByteVec));
  codes += (block_begin << 4) + (block_begin << 3);  // 24 columns a K-block
  tables += block_begin << 8;
  static_assert(kT3TableBytes == 256, "the shift above");
  for (int64_t b = block_begin; b < block_end; ++b, codes += 24) {
    int16_t words[24];  // broadcast from memory
    for (int i = 0; i < 24; ++i) words[i] = codes[i];
    for (int j = 0; j < kT3Groups; ++j, tables += 32) {
      ByteVec low[kVecs], high[kVecs];
      for (int v = 0; v < kVecs; ++v) t3_split(words + 3 * j, v * 16 / kVecs, &low[v], &high[v]);
      store_table_pair(low, high, tables);
    }
  }
}
