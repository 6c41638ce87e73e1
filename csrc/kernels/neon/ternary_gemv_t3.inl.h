// t3 by additions only: 16-entry table look-ups (tbl). Included inside the neon row's anonymous
// namespace.
//
// A group of 3 activations has the sums of magnitudes 0..13, stored as
//   sum = 32 hi + lo,   lo in -16..15, hi in -12..12
// in two int8 tables, so that the sums of a whole block (8 groups) fit a byte. Where a group is
// negative, uaba adds |u - 255| = ~u instead of |u - 0|: ~hi and ~lo are -sum - 33, and the end
// adds 33 for each sign counted.
#pragma once

constexpr int64_t kT3BlockBytes = kLayouts[static_cast<int>(Packing::kT3)].block_bytes;
constexpr int64_t kT3TableBytes = 8 * 32;  // per group 16 bytes lo, 16 bytes hi
constexpr int kT3ChunkBlocks =
    8;  // blocks a stream advances by: int16 holds 64 * (384 + 33), a byte 64 signs

// Sums of 32 rows over a chunk, rows 8 q .. 8 q + 7 in element q; signs of rows 16 h .. 16 h + 15
// in element h.
struct T3Sums {
  int16x8_t lo[4];
  int16x8_t hi[4];
  uint8x16_t signs[2];
};

// Adds the look-ups of one group for 16 rows to the byte sums.
template <int group>
BITINFER_INLINE void add_t3_group(const uint8_t* table, uint8x16_t magnitude, uint8x16_t sign_bits,
                                  uint8x16_t* lo, uint8x16_t* hi) {
  const uint8x16_t negative = vtstq_u8(sign_bits, vdupq_n_u8(0x80 >> group));
  *lo = vabaq_u8(*lo, vqtbl1q_u8(vld1q_u8(table + 32 * group), magnitude), negative);
  *hi = vabaq_u8(*hi, vqtbl1q_u8(vld1q_u8(table + 32 * group + 16), magnitude), negative);
}

template <int pair>
BITINFER_INLINE void add_t3_pair(const uint8_t* w, const uint8_t* table, uint8x16_t sign_bits,
                                 uint8x16_t* lo, uint8x16_t* hi) {
  const uint8x16_t magnitudes = vld1q_u8(w + 32 * pair);
  add_t3_group<2 * pair>(table, vandq_u8(magnitudes, vdupq_n_u8(15)), sign_bits, lo, hi);
  add_t3_group<2 * pair + 1>(table, vshrq_n_u8(magnitudes, 4), sign_bits, lo, hi);
}

// Rows 16 half .. 16 half + 15 of one block.
template <int half>
BITINFER_INLINE void add_t3_half_block(const uint8_t* w, const uint8_t* table, T3Sums* sums) {
  const uint8x16_t sign_bits = vld1q_u8(w + 128 + 16 * half);
  uint8x16_t lo_u8 = vdupq_n_u8(0), hi_u8 = vdupq_n_u8(0);
  add_t3_pair<0>(w + 16 * half, table, sign_bits, &lo_u8, &hi_u8);
  add_t3_pair<1>(w + 16 * half, table, sign_bits, &lo_u8, &hi_u8);
  add_t3_pair<2>(w + 16 * half, table, sign_bits, &lo_u8, &hi_u8);
  add_t3_pair<3>(w + 16 * half, table, sign_bits, &lo_u8, &hi_u8);
  const int8x16_t lo = vreinterpretq_s8_u8(lo_u8), hi = vreinterpretq_s8_u8(hi_u8);
  sums->lo[2 * half] = vaddw_s8(sums->lo[2 * half], vget_low_s8(lo));
  sums->lo[2 * half + 1] = vaddw_high_s8(sums->lo[2 * half + 1], lo);
  sums->hi[2 * half] = vaddw_s8(sums->hi[2 * half], vget_low_s8(hi));
  sums->hi[2 * half + 1] = vaddw_high_s8(sums->hi[2 * half + 1], hi);
  sums->signs[half] = vaddq_u8(sums->signs[half], vcntq_u8(sign_bits));
}

// acc[0..7] += 32 hi + lo + 33 signs; the int16 value is at most 64 * 384.
BITINFER_INLINE void flush_t3(int16x8_t lo, int16x8_t hi, uint8x8_t signs, int32_t* acc) {
  const int16x8_t ones = vreinterpretq_s16_u16(vmovl_u8(signs));
  const int16x8_t total = vaddq_s16(vshlq_n_s16(vaddq_s16(hi, ones), 5), vaddq_s16(lo, ones));
  vst1q_s32(acc, vaddw_s16(vld1q_s32(acc), vget_low_s16(total)));
  vst1q_s32(acc + 4, vaddw_high_s16(vld1q_s32(acc + 4), total));
}

// Adds num_blocks <= kT3ChunkBlocks blocks at w to acc (32) and returns where the next block
// begins.
BITINFER_INLINE const uint8_t* add_t3_chunk(const uint8_t* w, const uint8_t* table,
                                            int64_t num_blocks, int32_t* acc) {
  T3Sums sums;
  for (int16x8_t& lo : sums.lo) lo = vdupq_n_s16(0);
  for (int16x8_t& hi : sums.hi) hi = vdupq_n_s16(0);
  for (uint8x16_t& signs : sums.signs) signs = vdupq_n_u8(0);
  for (int64_t block = 0; block < num_blocks; ++block) {
    for (int line = 0; line < 3; ++line) __builtin_prefetch(w + kStreamAhead + 64 * line);
    add_t3_half_block<0>(w, table, &sums);
    add_t3_half_block<1>(w, table, &sums);
    w += kT3BlockBytes;
    table += kT3TableBytes;
  }
  flush_t3(sums.lo[0], sums.hi[0], vget_low_u8(sums.signs[0]), acc);
  flush_t3(sums.lo[1], sums.hi[1], vget_high_u8(sums.signs[0]), acc + 8);
  flush_t3(sums.lo[2], sums.hi[2], vget_low_u8(sums.signs[1]), acc + 16);
  flush_t3(sums.lo[3], sums.hi[3], vget_high_u8(sums.signs[1]), acc + 24);
  return w;
}

// Entries 0..15 of one table half (8 entries) as int16 sums of constant sign patterns; 14 and 15
// stay 0.
inline int16x8_t t3_sums(int16x8_t x, int16x8_t y, int16x8_t z, const int16_t (*mask)[8]) {
  const int16x8_t sum_x = vandq_s16(x, vld1q_s16(mask[0]));
  const int16x8_t sum_y =
      vsubq_s16(vandq_s16(y, vld1q_s16(mask[1])), vandq_s16(y, vld1q_s16(mask[2])));
  const int16x8_t sum_z =
      vsubq_s16(vandq_s16(z, vld1q_s16(mask[3])), vandq_s16(z, vld1q_s16(mask[4])));
  return vaddq_s16(vaddq_s16(sum_x, sum_y), sum_z);
}

// -1 where entry v = 9 x + 3 y + z has x = 1, y = 1, y = -1, z = 1, z = -1; v = 0..7 and 8..15.
constexpr int16_t kT3Masks[2][5][8] = {
    {{0, 0, 0, 0, 0, -1, -1, -1},
     {0, 0, -1, -1, -1, 0, 0, 0},
     {0, 0, 0, 0, 0, -1, -1, -1},
     {0, -1, 0, 0, -1, 0, 0, -1},
     {0, 0, -1, 0, 0, -1, 0, 0}},
    {{-1, -1, -1, -1, -1, -1, 0, 0},
     {0, 0, 0, -1, -1, -1, 0, 0},
     {0, 0, 0, 0, 0, 0, 0, 0},
     {0, 0, -1, 0, 0, -1, 0, 0},
     {-1, 0, 0, -1, 0, 0, 0, 0}},
};

// lo = sum - 32 * hi, taken on the low bytes alone since it fits one.
inline void store_t3_half_table(int16x8_t sum, uint8_t* table) {
  const int8x8_t hi = vrshrn_n_s16(sum, 5);
  const int8x8_t lo = vsub_s8(vmovn_s16(sum), vshl_n_s8(hi, 5));
  vst1_u8(table, vreinterpret_u8_s8(lo));
  vst1_u8(table + 16, vreinterpret_u8_s8(hi));
}

BITINFER_INLINE void build_t3_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  constexpr int64_t kGroups = kLayouts[static_cast<int>(Packing::kT3)].block_k / 3;
  codes += block_begin * 3 * kGroups;
  tables += block_begin * kT3TableBytes;
  for (int64_t group = 0; group < (block_end - block_begin) * kGroups; ++group) {
    const int16x8_t x = vdupq_n_s16(codes[0]);
    const int16x8_t y = vdupq_n_s16(codes[1]);
    const int16x8_t z = vdupq_n_s16(codes[2]);
    store_t3_half_table(t3_sums(x, y, z, kT3Masks[0]), tables);
    store_t3_half_table(t3_sums(x, y, z, kT3Masks[1]), tables + 8);
    codes += 3;
    tables += 32;
  }
}
