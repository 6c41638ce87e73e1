// GEMM of the NEON row, and the GEMV by multiplication of the packings whose natural kernel is a
// table.
//
// A run of weights is unpacked to int8 once and then multiplied with every token. i2 keeps the
// columns of a row in the lanes (dot product of 16 columns at a time), the others keep their rows
// there (one column of 32 rows times one activation), so no packing is ever transposed. w * a is in
// [-128, 128]: an int16 lane holds 255 of them.
#pragma once

namespace bitinfer {
namespace neon {
namespace {

#include "kernels/neon/unpack.inl.h"

constexpr int kI2ChunkBlocks = 4;  // 1024 columns: 128 products in an int16 lane
constexpr int64_t kI2ChunkK = kI2ChunkBlocks * kI2BlockK;
static_assert(4 * kI2ChunkK <= kGemmScratchBytes && kPanelColumns * kRowLanes <= kGemmScratchBytes,
              "panels fit");

inline void store_sum(int32_t* acc, int32_t sum, bool add) { *acc = add ? *acc + sum : sum; }

inline void store_sums(int32_t* acc, int32x4_t sums, bool add) {
  vst1q_s32(acc, add ? vaddq_s32(vld1q_s32(acc), sums) : sums);
}

// acc[m][n] (+)= sums of the lanes of sum[m][n]; the rows n are neighbours.
template <int NR, int MR>
inline void store_lane_sums(const int32x4_t (&sum)[MR][NR], int32_t* acc, int64_t acc_stride,
                            bool add) {
  for (int m = 0; m < MR; ++m) {
    if constexpr (NR == 4) {
      const int32x4_t rows01 = vpaddq_s32(sum[m][0], sum[m][1]);
      const int32x4_t rows23 = vpaddq_s32(sum[m][2], sum[m][3]);
      store_sums(acc + m * acc_stride, vpaddq_s32(rows01, rows23), add);
    } else {
      for (int n = 0; n < NR; ++n) store_sum(acc + m * acc_stride + n, vaddvq_s32(sum[m][n]), add);
    }
  }
}

// NR unpacked rows of kI2ChunkK weights, the first `k` used, times MR tokens.
template <int NR, int MR>
inline void multiply_columns(const int8_t* w, int64_t k, const int8_t* a, int64_t a_stride,
                             int32_t* acc, int64_t acc_stride, bool add) {
  int16x8_t sum_i16[MR][NR];
  for (int m = 0; m < MR; ++m) {
    for (int n = 0; n < NR; ++n) sum_i16[m][n] = vdupq_n_s16(0);
  }
  for (int64_t c = 0; c < k; c += 16) {
    int8x16_t weights[NR];
    for (int n = 0; n < NR; ++n) weights[n] = vld1q_s8(w + n * kI2ChunkK + c);
    for (int m = 0; m < MR; ++m) {
      const int8x16_t act = vld1q_s8(a + m * a_stride + c);
      for (int n = 0; n < NR; ++n) {
        sum_i16[m][n] = vmlal_s8(sum_i16[m][n], vget_low_s8(weights[n]), vget_low_s8(act));
        sum_i16[m][n] = vmlal_high_s8(sum_i16[m][n], weights[n], act);
      }
    }
  }
  int32x4_t sum[MR][NR];
  for (int m = 0; m < MR; ++m) {
    for (int n = 0; n < NR; ++n) sum[m][n] = vpaddlq_s16(sum_i16[m][n]);
  }
  store_lane_sums<NR, MR>(sum, acc, acc_stride, add);
}

// NR rows of i2 (each of num_blocks blocks) times m tokens.
template <int NR>
inline void gemm_i2_rows(const uint8_t* w, int64_t num_blocks, const int8_t* a, int64_t a_stride,
                         int64_t m, int32_t* acc, int64_t acc_stride, int8_t* panel) {
  for (int64_t block = 0; block < num_blocks; block += kI2ChunkBlocks) {
    const int64_t chunk = num_blocks - block < kI2ChunkBlocks ? num_blocks - block : kI2ChunkBlocks;
    for (int n = 0; n < NR; ++n) {
      const uint8_t* row = w + (n * num_blocks + block) * kI2BlockBytes;
      for (int64_t b = 0; b < chunk; ++b) {
        unpack_i2_block(row + b * kI2BlockBytes, panel + n * kI2ChunkK + b * kI2BlockK);
      }
    }
    const int8_t* columns = a + block * kI2BlockK;
    const int64_t k = chunk * kI2BlockK;
    int64_t t = 0;
    for (; t + 4 <= m; t += 4) {
      multiply_columns<NR, 4>(panel, k, columns + t * a_stride, a_stride, acc + t * acc_stride,
                              acc_stride, block > 0);
    }
    for (; t < m; ++t) {
      multiply_columns<NR, 1>(panel, k, columns + t * a_stride, a_stride, acc + t * acc_stride,
                              acc_stride, block > 0);
    }
  }
}

// panel[k <= kPanelColumns][kRowLanes] times MR tokens.
template <int MR>
inline void multiply_rows(const int8_t* panel, int64_t k, const int8_t* a, int64_t a_stride,
                          int32_t* acc, int64_t acc_stride, bool add) {
  int16x8_t sum_i16[MR][4];
  for (int m = 0; m < MR; ++m) {
    for (int q = 0; q < 4; ++q) sum_i16[m][q] = vdupq_n_s16(0);
  }
  for (int64_t c = 0; c < k; ++c) {
    const int8x16_t rows0 = vld1q_s8(panel + c * kRowLanes);
    const int8x16_t rows1 = vld1q_s8(panel + c * kRowLanes + 16);
    for (int m = 0; m < MR; ++m) {
      const int8x16_t act = vld1q_dup_s8(a + m * a_stride + c);
      sum_i16[m][0] = vmlal_s8(sum_i16[m][0], vget_low_s8(rows0), vget_low_s8(act));
      sum_i16[m][1] = vmlal_high_s8(sum_i16[m][1], rows0, act);
      sum_i16[m][2] = vmlal_s8(sum_i16[m][2], vget_low_s8(rows1), vget_low_s8(act));
      sum_i16[m][3] = vmlal_high_s8(sum_i16[m][3], rows1, act);
    }
  }
  for (int m = 0; m < MR; ++m) {
    for (int q = 0; q < 4; ++q) {
      int32_t* rows = acc + m * acc_stride + 8 * q;
      store_sums(rows, vmovl_s16(vget_low_s16(sum_i16[m][q])), add);
      store_sums(rows + 4, vmovl_high_s16(sum_i16[m][q]), add);
    }
  }
}

// 32 rows, those from byte w of each block on, times m tokens.
template <Packing P>
inline void gemm_rows32(const uint8_t* w, int64_t num_blocks, const int8_t* a, int64_t a_stride,
                        int64_t m, int32_t* acc, int64_t acc_stride, int8_t* panel) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(P)];
  constexpr int64_t kChunkBlocks = kPanelColumns / kLayout.block_k;
  for (int64_t block = 0; block < num_blocks; block += kChunkBlocks) {
    const int64_t chunk = num_blocks - block < kChunkBlocks ? num_blocks - block : kChunkBlocks;
    for (int64_t b = 0; b < chunk; ++b) {
      unpack_rows32<P>(w + (block + b) * kLayout.block_bytes,
                       panel + b * kLayout.block_k * kRowLanes);
    }
    const int8_t* columns = a + block * kLayout.block_k;
    const int64_t k = chunk * kLayout.block_k;
    int64_t t = 0;
    for (; t + 4 <= m; t += 4) {
      multiply_rows<4>(panel, k, columns + t * a_stride, a_stride, acc + t * acc_stride, acc_stride,
                       block > 0);
    }
    for (; t < m; ++t) {
      multiply_rows<1>(panel, k, columns + t * a_stride, a_stride, acc + t * acc_stride, acc_stride,
                       block > 0);
    }
  }
}

template <Packing P>
inline void gemm_tiles(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks, const int8_t* a,
                       int64_t a_stride, int64_t m, int32_t* acc, int64_t acc_stride,
                       int8_t* panel) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(P)];
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    for (int64_t row = 0; row < kLayout.tile_rows;
         row += kRowLanes) {  // a byte of each row, side by side
      gemm_rows32<P>(tiles + tile * num_blocks * kLayout.block_bytes + row, num_blocks, a, a_stride,
                     m, acc + tile * kLayout.tile_rows + row, acc_stride, panel);
    }
  }
}

// One stream after the other: unpacking, not memory, is the limit here.
template <Packing P>
inline void gemv_unpacked(const TileStreams& streams, int64_t num_blocks, const Activation& a) {
  alignas(64) int8_t panel[kPanelColumns * kRowLanes];
  for (int s = 0; s < streams.num_streams; ++s) {
    gemm_tiles<P>(streams.tiles[s], streams.tiles_per_stream, num_blocks, a.codes, 0, 1,
                  streams.acc[s], 0, panel);
  }
}

// NR rows of the head times MR tokens: |w * a| <= 128 * 127, so two products fit an int16 lane.
template <int NR, int MR>
inline void multiply_i8(const int8_t* w, int64_t k, const int8_t* a, int64_t a_stride, int32_t* acc,
                        int64_t acc_stride) {
  int32x4_t sum[MR][NR];
  for (int m = 0; m < MR; ++m) {
    for (int n = 0; n < NR; ++n) sum[m][n] = vdupq_n_s32(0);
  }
  for (int64_t c = 0; c < k; c += 16) {
    int8x16_t act[MR];
    for (int m = 0; m < MR; ++m) act[m] = vld1q_s8(a + m * a_stride + c);
    for (int n = 0; n < NR; ++n) {
      const int8x16_t weights = vld1q_s8(w + n * k + c);
      for (int m = 0; m < MR; ++m) {
        const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(act[m]));
        sum[m][n] = vpadalq_s16(sum[m][n], vmlal_high_s8(low, weights, act[m]));
      }
    }
    if (c % 64 == 0) {
      for (int n = 0; n < NR; ++n) __builtin_prefetch(w + n * k + c + kBytesAhead / NR);
    }
  }
  store_lane_sums<NR, MR>(sum, acc, acc_stride, false);
}

template <int NR>
inline void gemm_i8_rows(const int8_t* w, int64_t k, const int8_t* a, int64_t a_stride, int64_t m,
                         int32_t* acc, int64_t acc_stride) {
  int64_t t = 0;
  for (; t + 4 <= m; t += 4) {
    multiply_i8<NR, 4>(w, k, a + t * a_stride, a_stride, acc + t * acc_stride, acc_stride);
  }
  for (; t + 2 <= m; t += 2) {  // the two planes of one token
    multiply_i8<NR, 2>(w, k, a + t * a_stride, a_stride, acc + t * acc_stride, acc_stride);
  }
  if (t < m) multiply_i8<NR, 1>(w, k, a + t * a_stride, a_stride, acc + t * acc_stride, acc_stride);
}

}  // namespace

void ternary_gemv_dot_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_unpacked<Packing::kT3>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_unpacked<Packing::kT5>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_b1_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_unpacked<Packing::kB1>(streams, num_blocks, a);
}

void ternary_gemm_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  int8_t* panel = reinterpret_cast<int8_t*>(scratch);
  const int64_t row_bytes = num_blocks * kI2BlockBytes;
  int64_t row = 0;
  for (; row + 4 <= num_tiles; row += 4) {
    gemm_i2_rows<4>(tiles + row * row_bytes, num_blocks, a, a_stride, m, acc + row, acc_stride,
                    panel);
  }
  for (; row < num_tiles; ++row) {
    gemm_i2_rows<1>(tiles + row * row_bytes, num_blocks, a, a_stride, m, acc + row, acc_stride,
                    panel);
  }
}

void ternary_gemm_i8_t3_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm_tiles<Packing::kT3>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride,
                           reinterpret_cast<int8_t*>(scratch));
}

void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm_tiles<Packing::kT5>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride,
                           reinterpret_cast<int8_t*>(scratch));
}

void ternary_gemm_i8_b1_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm_tiles<Packing::kB1>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride,
                           reinterpret_cast<int8_t*>(scratch));
}

void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
             const int32_t* /*a_sum*/, int64_t m, int64_t k_padded, int32_t* acc,
             int64_t acc_stride) {
  int64_t row = 0;
  for (; row + 4 <= n; row += 4) {
    gemm_i8_rows<4>(w + row * k_padded, k_padded, a, a_stride, m, acc + row, acc_stride);
  }
  for (; row < n; ++row) {
    gemm_i8_rows<1>(w + row * k_padded, k_padded, a, a_stride, m, acc + row, acc_stride);
  }
}

}  // namespace neon
}  // namespace bitinfer
