// The sse41 row: t3 and b1 by 16-entry table look-ups (pshufb). Everything else is the scalar
// row's.
#include <immintrin.h>

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"

#define BITINFER_INLINE inline __attribute__((always_inline))
#define BITINFER_SYMBOL __attribute__((noinline))

namespace bitinfer {
namespace scalar {
KernelTable make_kernel_table();
}
namespace sse41 {
namespace {

// clang-format off: the vocabulary first
#include "kernels/sse41/bytes.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/read_streams.inl.h"
#include "kernels/generic/byte_sums.inl.h"
#include "kernels/generic/ternary_gemv_addsub_t3.inl.h"
#include "kernels/generic/build_tables_t3.inl.h"
#include "kernels/generic/ternary_gemv_addsub_b1.inl.h"
#include "kernels/generic/build_tables_b1.inl.h"
#include "kernels/generic/head_planes.inl.h"
// clang-format on

constexpr int kT3Lanes = 4;
constexpr int kB1Lanes = 4;

}  // namespace

BITINFER_SYMBOL void build_tables_i8_t3(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                        uint8_t* tables) {
  build_t3_tables(codes, block_begin, block_end, tables);
}

BITINFER_SYMBOL void build_tables_i8_b1(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                        uint8_t* tables) {
  build_b1_tables(codes, block_begin, block_end, tables);
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

#include "kernels/generic/head_plane_symbols.inl.h"

BITINFER_SYMBOL uint32_t read_streams(const uint8_t* data, int64_t bytes, int num_streams) {
  return read_streams_by_count(data, bytes, num_streams);
}

KernelTable make_kernel_table() {
  constexpr int kT3 = static_cast<int>(Packing::kT3);
  constexpr int kB1 = static_cast<int>(Packing::kB1);
  KernelTable table = scalar::make_kernel_table();
  table.gemv_addsub[kT3] = ternary_gemv_addsub_i8_t3_i32;
  table.build_tables[kT3] = build_tables_i8_t3;
  table.table_bytes[kT3] = kT3TableBytes;
  table.gemv_addsub[kB1] = ternary_gemv_addsub_i8_b1_i32;
  table.build_tables[kB1] = build_tables_i8_b1;
  table.table_bytes[kB1] = kB1TableBytes;
  table.auto_family[kT3] = GemvFamily::kAddsub;
  table.gemv_tokens[kT3] = table.gemv_tokens[kB1] = kAllTokens;  // its GEMMs are the scalar row's
  table.addsub_streams[kT3] = kT3Lanes;
  table.addsub_streams[kB1] = kB1Lanes;
  table.auto_packing = Packing::kT3;
  set_head_planes(&table);
  table.read_streams = read_streams;
  return table;
}

}  // namespace sse41
}  // namespace bitinfer
