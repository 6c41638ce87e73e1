// t5 by additions only: 128-entry table look-ups (tbl and tbx over four registers each). Included
// inside the neon row's anonymous namespace.
//
// A group of 5 activations (a K-block) has the sums T[m] = T(digits of m), m = 0..121, in
// -640..640, stored as
//   T = 32 h + l,   l in -16..15, h in -20..20
// in two tables of 128 bytes, 64 + l and 64 + h. Bit 7 of a packed byte, the sign, is a byte s of 0
// or 128, and uaba adds |64 + h - s|, which is 64 + h or 64 - h. So the bytes of b K-blocks add up
// to 64 b too much, mod 256, in every row; 6 K-blocks fit int8 (6 * 20 = 120) before they widen.
#pragma once

constexpr int64_t kT5BlockBytes = kLayouts[static_cast<int>(Packing::kT5)].block_bytes;
constexpr int64_t kT5TableBytes = 256;  // 128 bytes 64 + l, then 128 bytes 64 + h
constexpr int64_t kT5ChunkBlocks = 6;   // blocks a stream advances by

// Sums of 16 rows.
struct T5Sums {
  uint8x16_t low;
  uint8x16_t high;
};

// Entry `index` of 128 bytes. tbl gives 0 beyond its 64; tbx then leaves what lies beyond its own.
BITINFER_INLINE uint8x16_t look_up(uint8x16x4_t first, uint8x16x4_t second, uint8x16_t index,
                                   uint8x16_t upper) {
  return vqtbx4q_u8(vqtbl4q_u8(first, index), second, upper);
}

// acc[0..7] += 32 h + l; the int16 value is at most 6 * 640.
BITINFER_INLINE void add_to_acc(int8x8_t low, int8x8_t high, int32_t* acc) {
  const int16x8_t total = vaddw_s8(vshll_n_s8(high, 5), low);
  vst1q_s32(acc, vaddw_s16(vld1q_s32(acc), vget_low_s16(total)));
  vst1q_s32(acc + 4, vaddw_high_s16(vld1q_s32(acc + 4), total));
}

BITINFER_INLINE void flush_t5(const T5Sums& sums, int32_t* acc) {
  const int8x16_t low = vreinterpretq_s8_u8(sums.low), high = vreinterpretq_s8_u8(sums.high);
  add_to_acc(vget_low_s8(low), vget_low_s8(high), acc);
  add_to_acc(vget_high_s8(low), vget_high_s8(high), acc + 8);
}

// Adds num_blocks <= kT5ChunkBlocks blocks at w to acc (64) and returns where the next block
// begins.
BITINFER_INLINE const uint8_t* add_t5_chunk(const uint8_t* w, const uint8_t* table,
                                            int64_t num_blocks, int32_t* acc) {
  const uint8x16_t start = vdupq_n_u8(static_cast<uint8_t>(-(num_blocks << 6)));
  T5Sums rows0{start, start}, rows16{start, start}, rows32{start, start}, rows48{start, start};
  uint8x16_t sign_bit = vdupq_n_u8(0x80);
  asm("" : "+w"(sign_bit));  // if its value is known, a register goes to the mask 0x7f as well
  for (int64_t block = 0; block < num_blocks; ++block) {
    __builtin_prefetch(w + kStreamAhead);
    const uint8x16x4_t low0 = vld1q_u8_x4(table), low1 = vld1q_u8_x4(table + 64);
    const uint8x16x4_t high0 = vld1q_u8_x4(table + 128), high1 = vld1q_u8_x4(table + 192);
    const auto add_rows16 = [&](T5Sums& sums) __attribute__((always_inline)) {
      const uint8x16_t packed = vld1q_u8(w);
      const uint8x16_t sign = vandq_u8(packed, sign_bit);
      const uint8x16_t index = veorq_u8(packed, sign);
      const uint8x16_t upper = veorq_u8(index, vdupq_n_u8(64));
      sums.low = vabaq_u8(sums.low, look_up(low0, low1, index, upper), sign);
      sums.high = vabaq_u8(sums.high, look_up(high0, high1, index, upper), sign);
      w += 16;
      // Tables and sums take 24 of the 32 registers: rows after rows, as interleaved ones spill.
      asm("" : "+w"(sums.low), "+w"(sums.high), "+r"(w));
    };
    add_rows16(rows0);
    add_rows16(rows16);
    add_rows16(rows32);
    add_rows16(rows48);
    table += kT5TableBytes;
  }
  flush_t5(rows0, acc);
  flush_t5(rows16, acc + 16);
  flush_t5(rows32, acc + 32);
  flush_t5(rows48, acc + 48);
  return w;
}

// The tables: m = 27 p + q with p = 3 w0 + w1 in 0..4 and q = 9 w2 + 3 w3 + w4 in -13..13, so the
// sums of q follow each other five times, each time plus the sum of p.
struct T5Trits {
  uint8_t lane[3][4][16];  // of column 2 + i, for q = 8 v - 13 on: the bytes of its part of the sum
};

// Parts lie as the words x2, x3, x4, 0, -x2, -x3, -x4, 0.
constexpr T5Trits make_t5_trits() {
  T5Trits t{};
  for (int q = -13; q < 19; ++q) {
    int rest = q;
    for (int i = 2; i >= 0; --i) {  // balanced ternary, lowest digit first
      const int trit = (rest + 31) % 3 - 1;
      rest = (rest - trit) / 3;
      const int word = trit > 0 ? i : trit < 0 ? 4 + i : 3;
      for (int byte = 0; byte < 2; ++byte)
        t.lane[i][(q + 13) / 8][(q + 13) % 8 * 2 + byte] = static_cast<uint8_t>(2 * word + byte);
    }
  }
  return t;
}
constexpr T5Trits kT5Trits = make_t5_trits();

constexpr int64_t kT5FirstSum = 13;  // before it those of m = -13..-1, which nobody asks for
constexpr int64_t kT5SumCount = 144;

// The sums of a group, m = 0 at sums[kT5FirstSum], plus 32 * 64 and 16 to round h.
BITINFER_INLINE void store_t5_sums(const int8_t* codes, int16_t* sums) {
  int16x4_t x = vdup_n_s16(0);
  x = vset_lane_s16(codes[2], x, 0);
  x = vset_lane_s16(codes[3], x, 1);
  x = vset_lane_s16(codes[4], x, 2);
  const uint8x16_t parts = vreinterpretq_u8_s16(vcombine_s16(x, vneg_s16(x)));
  int16x8_t of_q[4];
  for (int v = 0; v < 4; ++v) {
    const auto part = [&](int i) __attribute__((always_inline)) {
      return vreinterpretq_s16_u8(vqtbl1q_u8(parts, vld1q_u8(kT5Trits.lane[i][v])));
    };
    of_q[v] = vaddq_s16(vaddq_s16(part(0), part(1)), part(2));
  }
  const int base = 16 + 32 * 64, x0 = codes[0], x1 = codes[1];
  const int all_p[5] = {base, base + x1, base + x0 - x1, base + x0, base + x0 + x1};
  for (const int of_p : all_p) {
    for (int v = 0; v < 4; ++v)  // 5 too many, which the next ones overwrite
      vst1q_s16(sums + 8 * v, vaddq_s16(of_q[v], vdupq_n_s16(static_cast<int16_t>(of_p))));
    sums += 27;
  }
}

// 128 sums to a table.
BITINFER_INLINE void split_t5_sums(const int16_t* sums, uint8_t* table) {
  for (int i = 0; i < 128; i += 16) {
    const int16x8_t first = vld1q_s16(sums + i), second = vld1q_s16(sums + i + 8);
    const int8x16_t high = vshrn_high_n_s16(vshrn_n_s16(first, 5), second, 5);
    const uint8x16_t low = vuzp1q_u8(vreinterpretq_u8_s16(first), vreinterpretq_u8_s16(second));
    vst1q_u8(table + i, vaddq_u8(vandq_u8(low, vdupq_n_u8(31)), vdupq_n_u8(64 - 16)));
    vst1q_u8(table + 128 + i, vreinterpretq_u8_s8(high));
  }
}

// Sums of four tables, then the tables: no load waits for the stores that it reads.
BITINFER_INLINE void build_t5_tables(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                     uint8_t* tables) {
  constexpr int64_t kGroup = kLayouts[static_cast<int>(Packing::kT5)].block_k;
  codes += block_begin * kGroup;
  tables += block_begin * kT5TableBytes;
  int16_t sums[4 * kT5SumCount] = {};
  for (int64_t left = block_end - block_begin; left > 0; left -= 4) {
    const int64_t blocks = left < 4 ? left : 4;
    int16_t* of_block = sums;
    for (int64_t b = 0; b < blocks; ++b, codes += kGroup, of_block += kT5SumCount)
      store_t5_sums(codes, of_block);
    of_block = sums + kT5FirstSum;
    for (int64_t b = 0; b < blocks; ++b, tables += kT5TableBytes, of_block += kT5SumCount)
      split_t5_sums(of_block, tables);
  }
}
