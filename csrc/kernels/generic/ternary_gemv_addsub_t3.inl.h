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
constexpr int kT3Together = sizeof(ByteVec) == 32 ? 2 : 1;  // tiles that share the loads of tables

// Adds one K-block of 16 or 32 rows of each of `lanes` tiles, which share the loads of the tables.
template <int lanes>
BITINFER_INLINE void t3_add_block(const uint8_t* const* tile, const uint8_t* tables, int v,
                                  ByteSums (*sums)[kT3Vecs]) {
  constexpr int kBytes = static_cast<int>(sizeof(ByteVec));
  const ByteVec nibble = fill_bytes(15);
  const ByteVec one = fill_bytes(1);
  const uint8_t* block[lanes];
  ByteVec low[lanes], high[lanes], signs[lanes], control[lanes];
  // A control byte of psign may be negative or positive but not zero: bit 0 is set once and moves
  // up with the signs, where it stays below bit 7 until the last group, whose sign bit 0 was.
  for (int r = 0; r < lanes; ++r) {
    block[r] = tile[r] + v * kBytes;
    low[r] = high[r] = fill_bytes(-128);
    signs[r] = load_bytes(block[r] + 128);
    control[r] = or_bytes(signs[r], one);
  }
#pragma GCC unroll 8
  for (int j = 0; j < kT3Groups; ++j) {
    const ByteVec low_table = load_table(tables + 32 * j);
    const ByteVec high_table = load_table(tables + 32 * j + 16);
#pragma GCC unroll 8
    for (int r = 0; r < lanes; ++r) {
      const ByteVec pair = load_bytes(block[r] + 32 * (j / 2));
      const ByteVec magnitude = and_bytes(j % 2 ? shift_words_right<4>(pair) : pair, nibble);
      if (j == kT3Groups - 1) control[r] = or_bytes(shift_words_left<7>(signs[r]), one);
      low[r] = add_bytes(low[r], negate_bytes(look_up(low_table, magnitude), control[r]));
      high[r] = add_bytes(high[r], negate_bytes(look_up(high_table, magnitude), control[r]));
      keep_order(low[r]);
      keep_order(high[r]);
      control[r] = add_bytes(control[r], control[r]);
    }
  }
  for (int r = 0; r < lanes; ++r) sums[r][v].widen(low[r], high[r]);
}

// The same of `lanes` neighbours of `count` lanes, whole, while those ahead are fetched.
template <int lanes, int count>
BITINFER_INLINE void t3_add_tiles(const uint8_t** tile, const uint8_t* tables,
                                  ByteSums (*sums)[kT3Vecs]) {
  for (int r = 0; r < lanes; ++r) {
    for (int line = 0; line < kT3BlockBytes; line += 64)
      prefetch(tile[r] + kBytesAhead / count + line);
  }
  for (int v = 0; v < kT3Vecs; ++v) t3_add_block<lanes>(tile, tables, v, sums);
  for (int r = 0; r < lanes; ++r) tile[r] += kT3BlockBytes;
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
      constexpr int kRest = count % kT3Together;
      for (int r = 0; r < count - kRest; r += kT3Together)
        t3_add_tiles<kT3Together, count>(tile + r, tables, sums + r);
      if constexpr (kRest > 0)
        t3_add_tiles<kRest, count>(tile + count - kRest, tables, sums + count - kRest);
    }
    for (int r = 0; r < count; ++r) {
      for (int v = 0; v < kT3Vecs; ++v) {
        store_byte_sums<31>(sums[r][v], static_cast<int16_t>(blocks << 7), first,
                            lanes.acc[r] + v * static_cast<int>(sizeof(ByteVec)));
      }
    }
  }
}
