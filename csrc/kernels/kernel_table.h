// The kernels of one ISA row and the contract of each, written once. Integer kernels return int32
// sums and nothing else, equal bit for bit on every row; float kernels (float_kernels.h) have one
// fixed order of operations.
//
//   acc[r] = sum_k w[r][k] * a[k],   w in {-1, 0, 1}, a int8 in -128..127
//
// Kernels see pointers and sizes only and assert; ops/ checks everything once. K < 2^23, so |acc| <
// 2^31.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/float_kernels.h"
#include "pack/format.h"
#include "pack/head_planes.h"

namespace bitinfer {

// One token's activations. codes: activation_bytes(K), zero from K on, any alignment; sum: sum of
// the codes; tables: what build_tables[packing] wrote for these codes (64-byte aligned), null where
// it is null.
struct Activation {
  const int8_t* codes;
  int32_t sum;
  const uint8_t* tables;
};

constexpr int kMaxStreams = 8;

// Up to kMaxStreams runs of row tiles that one call walks side by side, tile i of every stream
// together, so that a thread reads several far-apart streams (design: worth a factor of two from
// memory). Streams are independent.
struct TileStreams {
  int num_streams;                    // 1..kMaxStreams
  int64_t tiles_per_stream;           // consecutive tiles of each stream, >= 1
  const uint8_t* tiles[kMaxStreams];  // first tile of each stream
  int32_t* acc[kMaxStreams];  // (tiles_per_stream * tile_rows) sums of each stream, padded rows
                              // included; overwritten
};

// num_blocks: K-blocks of a tile. Overlaps nothing; reads exactly tiles_per_stream * num_blocks *
// block_bytes a stream.
using GemvFn = void (*)(const TileStreams& streams, int64_t num_blocks, const Activation& a);

// Writes the look-up tables of K-blocks [block_begin, block_end) at tables + block * table_bytes.
using BuildTablesFn = void (*)(const int8_t* codes, int64_t block_begin, int64_t block_end,
                               uint8_t* tables);

// acc[m * acc_stride + r] for r in [0, num_tiles * tile_rows), m in [0, M). a: int8 (M, a_stride),
// rows as Activation::codes; a_sum: (M) sums of codes; scratch: kGemmScratchBytes, 64-byte aligned,
// one per thread.
using GemmFn = void (*)(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                        const int8_t* a, int64_t a_stride, const int32_t* a_sum, int64_t m,
                        int32_t* acc, int64_t acc_stride, uint8_t* scratch);
constexpr int64_t kGemmScratchBytes = 512 * 1024;

// int8 x int8, for the head: acc[m * acc_stride + n] = sum_k w[n * k_padded + k] * a[m * a_stride +
// k]. w in -128..127, a in -127..127 (never -128); k_padded a multiple of 64, zeros beyond K in
// both.
using GemmI8Fn = void (*)(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                          const int32_t* a_sum, int64_t m, int64_t k_padded, int32_t* acc,
                          int64_t acc_stride);

// High plane of a two-plane head (pack/head_planes.h), n rows: acc[p * n + r] = sum_k h[r][k] *
// a[p * a_stride + k] for the two planes p of one token's activations, in -127..127, zeros in [k,
// plane_columns(k)). k in 1..kMaxPlaneColumns.
using HeadHighFn = void (*)(const uint8_t* high, int64_t n, int64_t k, const int8_t* a,
                            int64_t a_stride, int32_t* acc);

// One row of both planes back to its int8 codes, plane_columns(k) of them, 64-byte aligned.
using HeadJoinFn = void (*)(const uint8_t* high, const uint8_t* low, int64_t k, int8_t* codes);

// Reads `bytes` (a multiple of 64 * num_streams) once, as num_streams far-apart streams with
// prefetch; returns a checksum (sum of 32-bit words mod 2^32) so that nothing is optimised away.
// The memory roofline.
using ReadStreamsFn = uint32_t (*)(const uint8_t* data, int64_t bytes, int num_streams);

// Multiplies and adds in registers alone, by the instructions of the row's GEMM, `steps` times
// over; returns how many int8 products that were. The arithmetic roofline.
using MultiplyPeakFn = int64_t (*)(int64_t steps);

// Rows of an i2 matrix, ascending. The kernels that take them touch no other row, by prefetch
// neither.
struct ChosenRows {
  const uint8_t* w;     // of row 0
  int64_t num_blocks;   // K-blocks of a row
  const int32_t* rows;  // (count)
  int64_t count;        // >= 1
};

// acc[i] = sum_k w[rows[i]][k] * a[k], i in [0, count).
using GemvRowsFn = void (*)(const ChosenRows& w, const Activation& a, int32_t* acc);

// The rows are columns of a matrix packed transposed: acc[n] += sum_i codes[rows[i]] *
// w[rows[i]][n], n in [0, num_blocks * block_k). scratch: as large as acc, any content, 64-byte
// aligned. count < 2^21.
using GemvColumnsFn = void (*)(const ChosenRows& w, const int8_t* codes, int32_t* scratch,
                               int32_t* acc);

// Activations of the groups of an i2 K-block: group g has codes (256) that are zero beyond it at
// codes + g * stride, and their sum at sums[g * sum_stride].
struct GroupActivation {
  const int8_t* codes;
  int64_t stride;
  const int32_t* sums;
  int64_t sum_stride;
};

// Of an i2 matrix of one K-block, n rows: acc[g * acc_stride + r] = sum over the columns k of group
// g of w[r][k] * a[k], for 2 groups of 128 columns or 4 of 64, each row read once.
using GemvGroupsFn = void (*)(const uint8_t* rows, int64_t n, int groups, const GroupActivation& a,
                              int32_t* acc, int64_t acc_stride);

constexpr int64_t kMaxGemvTokens = 12;            // whose look-up tables are kept at once
constexpr int64_t kAllTokens = int64_t{1} << 62;  // in gemv_tokens: a GEMM is never faster

enum class GemvFamily : int { kAddsub = 0, kDot = 1 };

struct KernelTable {
  GemvFn gemv_addsub[kNumPackings];  // additions and subtractions only, proven by disassembly
  GemvFn gemv_dot[kNumPackings];     // dot-product instructions
  GemmFn gemm[kNumPackings];         // M >= 1
  BuildTablesFn build_tables[kNumPackings];  // for gemv_addsub; null where it needs none
  int64_t table_bytes[kNumPackings];         // per K-block, 0 where build_tables is null
  GemvFamily auto_family[kNumPackings];      // what BITINFER_GEMV=auto takes, by benchmark records
  int64_t gemv_tokens[kNumPackings];  // up to as many, a GEMV of auto_family for each is faster
                                      // than a GEMM, by benchmark records; 1..kMaxGemvTokens, or
                                      // kAllTokens
  int addsub_streams[kNumPackings];   // far-apart runs of tiles that a GEMV task of the family
  int dot_streams[kNumPackings];      // walks: as many as its kernel reads side by side
  Packing auto_packing;               // what packing="auto" takes, by benchmark records
  GemvRowsFn gemv_rows;               // these three multiply
  GemvColumnsFn gemv_columns;
  GemvGroupsFn gemv_groups;  // null where there is none: gemv_dot sums each group
  GemmI8Fn gemm_i8;
  HeadHighFn head_high[kNumHeadSplits];
  HeadJoinFn head_join[kNumHeadSplits];
  ReadStreamsFn read_streams;
  MultiplyPeakFn multiply_peak;  // null where the GEMM is plain C++
  FloatKernels f32;
};

}  // namespace bitinfer
