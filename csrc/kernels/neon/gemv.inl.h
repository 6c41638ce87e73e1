// GEMV of the NEON row: i2 by masked sums or by smlal, t3 and t5 by table look-ups. Plain ARMv8.0,
// no dot product.
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

#include "kernels/generic/read_ahead.inl.h"

constexpr int64_t kStreamAhead = kBytesAhead / kMaxStreams;  // that each stream prefetches
constexpr int64_t kI2BlockBytes = kLayouts[static_cast<int>(Packing::kI2)].block_bytes;
constexpr int64_t kI2BlockK = kLayouts[static_cast<int>(Packing::kI2)].block_k;

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
        __builtin_prefetch(w[s] + kStreamAhead);
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

#include "kernels/neon/ternary_gemv_t3.inl.h"
#include "kernels/neon/ternary_gemv_t5.inl.h"

// Walks the tiles of all streams side by side, chunk_blocks K-blocks of one after the other, which
// read the same tables meanwhile. add_chunk(w, tables, blocks <= chunk_blocks, acc) adds to acc
// (tile_rows) and returns where the next block begins.
template <Packing P, int64_t chunk_blocks, int64_t table_bytes,
          const uint8_t* (*add_chunk)(const uint8_t*, const uint8_t*, int64_t, int32_t*)>
BITINFER_INLINE void gemv_by_tables(const TileStreams& streams, int64_t num_blocks,
                                    const uint8_t* tables) {
  constexpr int64_t kTileRows = kLayouts[static_cast<int>(P)].tile_rows;
  assert(streams.num_streams >= 1 && streams.num_streams <= kMaxStreams);
  const uint8_t* w[kMaxStreams];
  int32_t* acc[kMaxStreams];
  for (int s = 0; s < streams.num_streams; ++s) {
    w[s] = streams.tiles[s];
    acc[s] = streams.acc[s];
  }
  for (int64_t tile = 0; tile < streams.tiles_per_stream; ++tile) {
    for (int s = 0; s < streams.num_streams; ++s) {
      for (int r = 0; r < kTileRows; r += 4) vst1q_s32(acc[s] + r, vdupq_n_s32(0));
    }
    const uint8_t* table = tables;
    for (int64_t left = num_blocks; left > 0; left -= chunk_blocks) {
      const int64_t blocks = left < chunk_blocks ? left : chunk_blocks;
      for (int s = 0; s < streams.num_streams; ++s) w[s] = add_chunk(w[s], table, blocks, acc[s]);
      table += chunk_blocks * table_bytes;
    }
    for (int s = 0; s < streams.num_streams; ++s) acc[s] += kTileRows;
  }
}

}  // namespace

void build_tables_t3(const int8_t* codes, int64_t block_begin, int64_t block_end, uint8_t* tables) {
  build_t3_tables(codes, block_begin, block_end, tables);
}

void build_tables_t5(const int8_t* codes, int64_t block_begin, int64_t block_end, uint8_t* tables) {
  build_t5_tables(codes, block_begin, block_end, tables);
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
  gemv_by_tables<Packing::kT3, kT3ChunkBlocks, kT3TableBytes, add_t3_chunk>(streams, num_blocks,
                                                                            a.tables);
}

__attribute__((noinline)) void ternary_gemv_addsub_i8_t5_i32(const TileStreams& streams,
                                                             int64_t num_blocks,
                                                             const Activation& a) {
  gemv_by_tables<Packing::kT5, kT5ChunkBlocks, kT5TableBytes, add_t5_chunk>(streams, num_blocks,
                                                                            a.tables);
}

}  // namespace neon
}  // namespace bitinfer
