// The avx2 row: i2 by maddubs and by additions, t3 and b1 by table look-ups, all GEMMs.
#include <immintrin.h>

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
// clang-format off: the vocabulary first
#include "kernels/avx2/simd.h"
#include "kernels/generic/float_kernels.inl.h"
// clang-format on

#define BITINFER_INLINE inline __attribute__((always_inline))
#define BITINFER_SYMBOL __attribute__((noinline))

namespace bitinfer {
namespace sse41 {
KernelTable make_kernel_table();
}
namespace avx2 {
namespace {

// clang-format off: each uses the ones before it
#include "kernels/avx2/bytes.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/read_streams.inl.h"
#include "kernels/generic/byte_sums.inl.h"
#include "kernels/generic/ternary_gemv_addsub_t3.inl.h"
#include "kernels/generic/build_tables_t3.inl.h"
#include "kernels/generic/ternary_gemv_addsub_b1.inl.h"
#include "kernels/generic/build_tables_b1.inl.h"
#include "kernels/avx2/ternary_gemv_i2.inl.h"
#include "kernels/generic/chosen_rows.inl.h"
#include "kernels/avx2/gemv_columns.inl.h"
#include "kernels/avx2/gemv_groups.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/generic/unpack_b1.inl.h"
#include "kernels/generic/unpack_t5.inl.h"
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/avx2/micro_kernels.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
#include "kernels/generic/gemm_i8.inl.h"
#include "kernels/generic/head_planes.inl.h"
// clang-format on

constexpr int kT3Lanes = 2;
constexpr int kB1Lanes = 8;

}  // namespace

#include "kernels/generic/dot_symbols.inl.h"
#include "kernels/generic/head_plane_symbols.inl.h"

BITINFER_SYMBOL void build_tables_i8_i2(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                        uint8_t* tables) {
  build_i2_tables(codes, block_begin, block_end, tables);
}

BITINFER_SYMBOL void build_tables_i8_t3(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                        uint8_t* tables) {
  build_t3_tables(codes, block_begin, block_end, tables);
}

BITINFER_SYMBOL void build_tables_i8_b1(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                        uint8_t* tables) {
  build_b1_tables(codes, block_begin, block_end, tables);
}

BITINFER_SYMBOL void ternary_gemv_addsub_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                                   const Activation& a) {
  for_each_lane_group<4>(streams, num_blocks << 6, 1,
                         [&](const auto& lanes) { i2_addsub_lanes(lanes, num_blocks, a.tables); });
}

BITINFER_SYMBOL void ternary_gemv_addsub_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                                   const Activation& a) {
  const int64_t tile_bytes = (num_blocks << 7) + (num_blocks << 5);  // 160 a K-block
  for_each_lane_group<kT3Lanes>(streams, tile_bytes, kT3Rows, [&](const auto& lanes) {
    t3_lane_group(lanes, num_blocks, a.tables);
  });
}

BITINFER_SYMBOL void ternary_gemv_addsub_i8_b1_i32(const TileStreams& streams, int64_t num_blocks,
                                                   const Activation& a) {
  for_each_lane_group<kB1Lanes>(streams, num_blocks << 6, kB1Rows, [&](const auto& lanes) {
    b1_lane_group(lanes, num_blocks, a.tables);
  });
}

BITINFER_SYMBOL void ternary_gemv_columns_i8_i2_i32(const ChosenRows& w, const int8_t* codes,
                                                    int32_t* scratch, int32_t* acc) {
  gemv_columns_by_pairs(w, codes, scratch, acc);
}

BITINFER_SYMBOL void ternary_gemv_groups_i8_i2_i32(const uint8_t* rows, int64_t n, int groups,
                                                   const GroupActivation& a, int32_t* acc,
                                                   int64_t acc_stride) {
  if (groups == 2) return gemv_groups_i2<2>(rows, n, a, acc, acc_stride);
  gemv_groups_i2<4>(rows, n, a, acc, acc_stride);
}

KernelTable make_kernel_table() {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  constexpr int kT3 = static_cast<int>(Packing::kT3);
  constexpr int kT5 = static_cast<int>(Packing::kT5);
  constexpr int kB1 = static_cast<int>(Packing::kB1);
  KernelTable table = sse41::make_kernel_table();
  table.gemv_addsub[kI2] = ternary_gemv_addsub_i8_i2_i32;
  table.build_tables[kI2] = build_tables_i8_i2;
  table.table_bytes[kI2] = kI2TableBytes;
  table.gemv_addsub[kT3] = ternary_gemv_addsub_i8_t3_i32;
  table.build_tables[kT3] = build_tables_i8_t3;
  table.gemv_addsub[kB1] = ternary_gemv_addsub_i8_b1_i32;
  table.build_tables[kB1] = build_tables_i8_b1;
  set_dot_symbols(&table);
  set_head_planes(&table);
  table.gemv_columns = ternary_gemv_columns_i8_i2_i32;
  table.gemv_groups = ternary_gemv_groups_i8_i2_i32;
  table.auto_family[kI2] = GemvFamily::kDot;
  table.auto_family[kT3] = GemvFamily::kAddsub;
  table.auto_family[kT5] = GemvFamily::kDot;
  for (int64_t& tokens : table.gemv_tokens) tokens = kMaxGemvTokens;
  table.gemv_tokens[kT5] = 1;  // its GEMV is a GEMM
  table.addsub_streams[kT3] = kT3Lanes;
  table.addsub_streams[kB1] = kB1Lanes;
  table.auto_packing = Packing::kT3;
  table.f32 = make_float_kernels();
  return table;
}

}  // namespace avx2
}  // namespace bitinfer
