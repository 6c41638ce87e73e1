// The look-up tables of ternary_gemv_addsub_b1.inl.h, additions only, on the ByteVec vocabulary (16
// or 32 bytes) of the row. Included inside its anonymous namespace.
#pragma once

// All ones in the entries whose bit i is set: there column i is added, not subtracted.
struct B1Masks {
  alignas(32) int16_t bit[4][16];
};

constexpr B1Masks make_b1_masks() {
  B1Masks t{};
  for (int i = 0; i < 4; ++i) {
    for (int entry = 0; entry < 16; ++entry)
      t.bit[i][entry] = static_cast<int16_t>(entry >> i & 1 ? -1 : 0);
  }
  return t;
}
constexpr B1Masks kB1Masks = make_b1_masks();

// The sums of the entries from `first` on, as words that one vector holds: none, the sum where all
// are subtracted, and twice each activation whose bit is set.
BITINFER_INLINE void b1_split(const int16_t* twice, int16_t none, int first, ByteVec* low,
                              ByteVec* high) {
  ByteVec sum = fill_words16(none);
  for (int i = 0; i < 4; ++i) {
    const void* mask = kB1Masks.bit[i] + first;
    sum = add_words16(
        sum, and_bytes(fill_words16(twice[i]), load_bytes(static_cast<const uint8_t*>(mask))));
  }
  *high = shift_words_right_signed<5>(add_words16(sum, fill_words16(16)));
  *low = subtract_words16(sum, shift_words_left<5>(*high));
}

BITINFER_INLINE void build_b1_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  constexpr int kVecs = 32 / static_cast<int>(sizeof(ByteVec));
  codes += block_begin << 3;
  tables += block_begin << 6;
  static_assert(kB1TableBytes == 64, "the shift above");
  for (int64_t half = block_begin << 1; half < block_end << 1; ++half, codes += 4, tables += 32) {
    int16_t twice[4];  // broadcast from memory
    int32_t all = 0;
    for (int i = 0; i < 4; ++i) {
      twice[i] = static_cast<int16_t>(codes[i] + codes[i]);
      all += codes[i];
    }
    ByteVec low[kVecs], high[kVecs];
    for (int v = 0; v < kVecs; ++v)
      b1_split(twice, static_cast<int16_t>(-all), v * 16 / kVecs, &low[v], &high[v]);
    store_table_pair(low, high, tables);
  }
}
