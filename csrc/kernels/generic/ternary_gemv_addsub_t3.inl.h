// t3 by additions only: 16-entry table look-ups, on the ByteVec vocabulary (16 or 32 bytes) of the
// row.
//
// A group of 3 activations (x, y, z) has the sums T[m] = T(digits of m), m = 0..13, in -384..384.
// They are stored as
//   T = 31 h + l,   l in -15..15, h in -13..13
// in two int8 tables, so that the 8 groups of a K-block add up in int8: 8 * 15 = 120. A set sign
// bit negates both bytes (exact: -128 never occurs), and a K-block widens once. Included inside the
// anonymous namespace of a row, after lane_groups.inl.h and byte_sums.inl.h.
#pragma once

constexpr int kT3Groups = 8;                           // groups of a K-block
constexpr int64_t kT3TableBytes = kT3Groups * 2 * 16;  // per group 16 low then 16 high bytes
constexpr int64_t kT3BlockBytes = kLayouts[static_cast<int>(Packing::kT3)].block_bytes;
constexpr int kT3Rows = 32;
constexpr int kT3Vecs = kT3Rows / static_cast<int>(sizeof(ByteVec));

// Adds one K-block of 16 or 32 rows.
BITINFER_INLINE void t3_add_block(const uint8_t* block, const uint8_t* tables, int v,
                                  ByteSums& sums) {
  constexpr int kBytes = static_cast<int>(sizeof(ByteVec));
  const ByteVec nibble = fill_bytes(15);
  const ByteVec one = fill_bytes(1);
  block += v * kBytes;
  ByteVec low = fill_bytes(-128);
  ByteVec high = low;
  // A control byte of psign may be negative or positive but not zero: bit 0 is set once and moves
  // up with the signs, where it stays below bit 7 until the last group, whose sign bit 0 was.
  const ByteVec signs = load_bytes(block + 128);
  ByteVec control = or_bytes(signs, one);
#pragma GCC unroll 8
  for (int j = 0; j < kT3Groups; ++j) {
    const ByteVec pair = load_bytes(block + 32 * (j / 2));
    const ByteVec magnitude = and_bytes(j % 2 ? shift_words_right<4>(pair) : pair, nibble);
    if (j == kT3Groups - 1) control = or_bytes(shift_words_left<7>(signs), one);
    low = add_bytes(low, negate_bytes(look_up(load_table(tables + 32 * j), magnitude), control));
    high = add_bytes(high,
                     negate_bytes(look_up(load_table(tables + 32 * j + 16), magnitude), control));
    keep_order(low);
    keep_order(high);
    control = add_bytes(control, control);
  }
  sums.widen(low, high);
}

template <int count>
BITINFER_INLINE void t3_lane_group(const LaneGroup<count>& lanes, int64_t num_blocks,
                                   const uint8_t* tables) {
  const uint8_t* tile[count];
  for (int r = 0; r < count; ++r) tile[r] = lanes.tile[r];
  bool first = true;
  for (int64_t left = num_blocks; left > 0; left -= kRunWidenings, first = false) {
    const int64_t blocks = left < kRunWidenings ? left : kRunWidenings;
    ByteSums sums[count][kT3Vecs];
    for (int r = 0; r < count; ++r) {
      for (int v = 0; v < kT3Vecs; ++v) sums[r][v].clear();
    }
    for (int64_t b = 0; b < blocks; ++b, tables += kT3TableBytes) {
      for (int r = 0; r < count; ++r) {
        for (int line = 0; line < kT3BlockBytes; line += 64)
          prefetch(tile[r] + kPrefetchAhead + line);
        for (int v = 0; v < kT3Vecs; ++v) t3_add_block(tile[r], tables, v, sums[r][v]);
        tile[r] += kT3BlockBytes;
      }
    }
    for (int r = 0; r < count; ++r) {
      for (int v = 0; v < kT3Vecs; ++v) {
        store_byte_sums<31>(sums[r][v], static_cast<int16_t>(blocks << 7), first,
                            lanes.acc[r] + v * static_cast<int>(sizeof(ByteVec)));
      }
    }
  }
}
