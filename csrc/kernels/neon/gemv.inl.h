// GEMV of the NEON row: i2 by masked sums or by smlal, t3 by table look-ups. Plain ARMv8.0, no dot
// product.
//
// The *_addsub_* functions hold no multiply at all, index arithmetic included (a test disassembles
// them), so pointers walk and strides are powers of two. All streams advance together, a block or a
// few at a time.
#pragma once

// In the symbol that the test reads, whatever the optimizer thinks of its size.
#define BITINFER_INLINE inline __attribute__((always_inline))

namespace bitinfer {
namespace neon {
namespace {

constexpr int kPrefetchAhead = 1024;  // bytes ahead of the weights being read
constexpr int64_t kI2BlockBytes = kLayouts[static_cast<int>(Packing::kI2)].block_bytes;
constexpr int64_t kI2BlockK = kLayouts[static_cast<int>(Packing::kI2)].block_k;
constexpr int64_t kT3BlockBytes = kLayouts[static_cast<int>(Packing::kT3)].block_bytes;
constexpr int64_t kT3TileRows = kLayouts[static_cast<int>(Packing::kT3)].tile_rows;

// sum + sum_k c[k] * a[k] over one i2 block as two masked sums: c != 0 adds a once, c == 2 once
// more. A lane of the int16 sum takes 32 pairs of -128: -8192.
BITINFER_INLINE int32x4_t add_i2_block_masked(const uint8_t* w, const int8_t* a, int32x4_t sum) {
  int16x8_t any_i16 = vdupq_n_s16(0);
  int16x8_t two_i16 = vdupq_n_s16(0);
  for (int p = 0; p < 64; p += 16) {
    const uint8x16_t codes = vld1q_u8(w + p);
    for (int g = 0; g < 4; ++g) {
      const int8x16_t act = vld1q_s8(a + 64 * g + p);
      const uint8x16_t any = vtstq_u8(codes, vdupq_n_u8(static_cast<uint8_t>(3 << (2 * g))));
      const uint8x16_t two = vtstq_u8(codes, vdupq_n_u8(static_cast<uint8_t>(2 << (2 * g))));
      any_i16 = vpadalq_s8(any_i16, vandq_s8(act, vreinterpretq_s8_u8(any)));
      two_i16 = vpadalq_s8(two_i16, vandq_s8(act, vreinterpretq_s8_u8(two)));
    }
  }
  return vpadalq_s16(vpadalq_s16(sum, any_i16), two_i16);
}

// The same by multiplication. c * a is in [-256, 254]; each of the four int16 sums takes 8 of them.
inline int32x4_t add_i2_block_dot(const uint8_t* w, const int8_t* a, int32x4_t sum) {
  int16x8_t sum_i16[4] = {vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0)};
  const uint8x16_t low2 = vdupq_n_u8(3);
  for (int p = 0; p < 64; p += 16) {
    const uint8x16_t bytes = vld1q_u8(w + p);
    const uint8x16_t codes[4] = {vandq_u8(bytes, low2), vandq_u8(vshrq_n_u8(bytes, 2), low2),
                                 vandq_u8(vshrq_n_u8(bytes, 4), low2), vshrq_n_u8(bytes, 6)};
    for (int g = 0; g < 4; ++g) {
      const int8x16_t act = vld1q_s8(a + 64 * g + p);
      const int8x16_t c = vreinterpretq_s8_u8(codes[g]);
      sum_i16[g] = vmlal_s8(sum_i16[g], vget_low_s8(c), vget_low_s8(act));
      sum_i16[g] = vmlal_high_s8(sum_i16[g], c, act);
    }
  }
  const int16x8_t half0 = vaddq_s16(sum_i16[0], sum_i16[1]);
  const int16x8_t half1 = vaddq_s16(sum_i16[2], sum_i16[3]);
  return vpadalq_s16(sum, vaddq_s16(half0, half1));
}

// Walks the rows of all streams side by side; acc = sum_k c * a - sum_k a.
template <int32x4_t (*add_block)(const uint8_t*, const int8_t*, int32x4_t)>
BITINFER_INLINE void gemv_i2(const TileStreams& streams, int64_t num_blocks, const Activation& a) {
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams);
  const uint8_t* w[kMaxStreams];
  for (int s = 0; s < streams.num_streams; ++s) w[s] = streams.tiles[s];
  for (int64_t tile = 0; tile < streams.tiles_per_stream; ++tile) {
    int32x4_t sum[kMaxStreams];
    for (int s = 0; s < streams.num_streams; ++s) sum[s] = vdupq_n_s32(0);
    const int8_t* codes = a.codes;
    for (int64_t block = 0; block < num_blocks; ++block) {
      for (int s = 0; s < streams.num_streams; ++s) {
        __builtin_prefetch(w[s] + kPrefetchAhead);
        sum[s] = add_block(w[s], codes, sum[s]);
        w[s] += kI2BlockBytes;
      }
      codes += kI2BlockK;
    }
    for (int s = 0; s < streams.num_streams; ++s) streams.acc[s][tile] = vaddvq_s32(sum[s]) - a.sum;
  }
}

// gemv_rows of kernel_table.h: one row after the other, the next one fetched meanwhile.
BITINFER_INLINE void gemv_chosen_rows(const ChosenRows& w, const Activation& a, int32_t* acc) {
  const int64_t row_bytes = w.num_blocks * kI2BlockBytes;
  for (int64_t i = 0; i < w.count; ++i) {
    const uint8_t* block = w.w + w.rows[i] * row_bytes;
    const uint8_t* next = w.w + w.rows[i + 1 < w.count ? i + 1 : i] * row_bytes;
    const int8_t* codes = a.codes;
    int32x4_t sum = vdupq_n_s32(0);
    for (int64_t b = 0; b < w.num_blocks; ++b) {
      __builtin_prefetch(next);
      sum = add_i2_block_dot(block, codes, sum);
      block += kI2BlockBytes;
      next += kI2BlockBytes;
      codes += kI2BlockK;
    }
    acc[i] = vaddvq_s32(sum) - a.sum;
  }
}

#include "kernels/generic/gemv_columns.inl.h"

// t3: for each group of three activations one table of the sums of magnitudes 0..13, split so that
// byte sums of a whole block (8 groups) fit: sum = 32 * hi + lo with lo in -16..15 (8 of them:
// -128..120) and hi in -12..12. A negative group adds ~hi and ~lo, that is -sum - 33, and the end
// adds 33 for each sign counted.
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
                                  int8x16_t* lo, int8x16_t* hi) {
  const uint8x16_t negative = vtstq_u8(sign_bits, vdupq_n_u8(0x80 >> group));
  const uint8x16_t lo_u8 = veorq_u8(vqtbl1q_u8(vld1q_u8(table + 32 * group), magnitude), negative);
  const uint8x16_t hi_u8 =
      veorq_u8(vqtbl1q_u8(vld1q_u8(table + 32 * group + 16), magnitude), negative);
  *lo = vaddq_s8(*lo, vreinterpretq_s8_u8(lo_u8));
  *hi = vaddq_s8(*hi, vreinterpretq_s8_u8(hi_u8));
}

template <int pair>
BITINFER_INLINE void add_t3_pair(const uint8_t* w, const uint8_t* table, uint8x16_t sign_bits,
                                 int8x16_t* lo, int8x16_t* hi) {
  const uint8x16_t magnitudes = vld1q_u8(w + 32 * pair);
  add_t3_group<2 * pair>(table, vandq_u8(magnitudes, vdupq_n_u8(15)), sign_bits, lo, hi);
  add_t3_group<2 * pair + 1>(table, vshrq_n_u8(magnitudes, 4), sign_bits, lo, hi);
}

// Rows 16 half .. 16 half + 15 of one block.
template <int half>
BITINFER_INLINE void add_t3_half_block(const uint8_t* w, const uint8_t* table, T3Sums* sums) {
  const uint8x16_t sign_bits = vld1q_u8(w + 128 + 16 * half);
  int8x16_t lo = vdupq_n_s8(0);
  int8x16_t hi = vdupq_n_s8(0);
  add_t3_pair<0>(w + 16 * half, table, sign_bits, &lo, &hi);
  add_t3_pair<1>(w + 16 * half, table, sign_bits, &lo, &hi);
  add_t3_pair<2>(w + 16 * half, table, sign_bits, &lo, &hi);
  add_t3_pair<3>(w + 16 * half, table, sign_bits, &lo, &hi);
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
    for (int line = 0; line < 3; ++line) __builtin_prefetch(w + kPrefetchAhead + 64 * line);
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

}  // namespace

void build_tables_t3(const int8_t* codes, int64_t block_begin, int64_t block_end, uint8_t* tables) {
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

__attribute__((noinline)) void ternary_gemv_addsub_i8_i2_i32(const TileStreams& streams,
                                                             int64_t num_blocks,
                                                             const Activation& a) {
  gemv_i2<add_i2_block_masked>(streams, num_blocks, a);
}

__attribute__((noinline)) void ternary_gemv_dot_i8_i2_i32(const TileStreams& streams,
                                                          int64_t num_blocks, const Activation& a) {
  gemv_i2<add_i2_block_dot>(streams, num_blocks, a);
}

__attribute__((noinline)) void ternary_gemv_rows_i8_i2_i32(const ChosenRows& w, const Activation& a,
                                                           int32_t* acc) {
  gemv_chosen_rows(w, a, acc);
}

__attribute__((noinline)) void ternary_gemv_columns_i8_i2_i32(const ChosenRows& w,
                                                              const int8_t* codes,
                                                              int32_t* /*scratch*/, int32_t* acc) {
  gemv_columns_plain(w, codes, acc);
}

__attribute__((noinline)) void ternary_gemv_addsub_i8_t3_i32(const TileStreams& streams,
                                                             int64_t num_blocks,
                                                             const Activation& a) {
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams);
  const uint8_t* w[kMaxStreams];
  int32_t* acc[kMaxStreams];
  for (int s = 0; s < streams.num_streams; ++s) {
    w[s] = streams.tiles[s];
    acc[s] = streams.acc[s];
  }
  for (int64_t tile = 0; tile < streams.tiles_per_stream; ++tile) {
    for (int s = 0; s < streams.num_streams; ++s) {
      for (int r = 0; r < kT3TileRows; r += 4) vst1q_s32(acc[s] + r, vdupq_n_s32(0));
    }
    const uint8_t* table = a.tables;
    for (int64_t left = num_blocks; left > 0; left -= kT3ChunkBlocks) {
      const int64_t chunk = left < kT3ChunkBlocks ? left : kT3ChunkBlocks;
      for (int s = 0; s < streams.num_streams; ++s) w[s] = add_t3_chunk(w[s], table, chunk, acc[s]);
      table += kT3ChunkBlocks * kT3TableBytes;
    }
    for (int s = 0; s < streams.num_streams; ++s) acc[s] += kT3TileRows;
  }
}

}  // namespace neon
}  // namespace bitinfer
