// The NEON row: every 64-bit Arm CPU, no optional instructions.
#include <arm_neon.h>

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
// clang-format off: the vocabulary first; gemm uses gemv's constants
#include "kernels/neon/simd.h"
#include "kernels/generic/float_kernels.inl.h"
#include "kernels/neon/gemv.inl.h"
#include "kernels/neon/gemm.inl.h"
#include "kernels/neon/bytes.h"
// clang-format on

namespace bitinfer {
namespace scalar {
KernelTable make_kernel_table();
}

namespace neon {

namespace {
#include "kernels/generic/byte_sums.inl.h"
#include "kernels/generic/head_planes.inl.h"
#include "kernels/generic/lane_groups.inl.h"
// clang-format off: on the ones before them
#include "kernels/generic/ternary_gemv_addsub_b1.inl.h"
#include "kernels/generic/build_tables_b1.inl.h"
// clang-format on
constexpr int kB1Lanes = 4;
}  // namespace

void build_tables_b1(const int8_t* codes, int64_t block_begin, int64_t block_end, uint8_t* tables) {
  build_b1_tables(codes, block_begin, block_end, tables);
}

__attribute__((noinline)) void ternary_gemv_addsub_i8_b1_i32(const TileStreams& streams,
                                                             int64_t num_blocks,
                                                             const Activation& a) {
  for_each_lane_group<kB1Lanes>(streams, num_blocks << 6, kB1Rows, [&](const auto& lanes) {
    b1_lane_group(lanes, num_blocks, a.tables);
  });
}

#include "kernels/generic/head_plane_symbols.inl.h"

uint32_t read_streams(const uint8_t* data, int64_t bytes, int num_streams) {
  assert(num_streams >= 1 && num_streams <= kMaxStreams);
  const int64_t stream_bytes = bytes / num_streams;
  uint32x4_t sum[4] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};
  for (int64_t offset = 0; offset < stream_bytes; offset += 64) {
    for (int s = 0; s < num_streams; ++s) {
      const uint8_t* line = data + s * stream_bytes + offset;
      __builtin_prefetch(line + kBytesAhead / num_streams);
      for (int q = 0; q < 4; ++q)
        sum[q] = vaddq_u32(sum[q], vreinterpretq_u32_u8(vld1q_u8(line + 16 * q)));
    }
  }
  return vaddvq_u32(vaddq_u32(vaddq_u32(sum[0], sum[1]), vaddq_u32(sum[2], sum[3])));
}

KernelTable make_kernel_table() {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  constexpr int kT3 = static_cast<int>(Packing::kT3);
  constexpr int kT5 = static_cast<int>(Packing::kT5);
  constexpr int kB1 = static_cast<int>(Packing::kB1);
  KernelTable table = scalar::make_kernel_table();
  table.gemv_addsub[kI2] = ternary_gemv_addsub_i8_i2_i32;
  table.gemv_addsub[kT3] = ternary_gemv_addsub_i8_t3_i32;
  table.gemv_addsub[kT5] = ternary_gemv_addsub_i8_t5_i32;
  table.gemv_addsub[kB1] = ternary_gemv_addsub_i8_b1_i32;
  table.build_tables[kT3] = build_tables_t3;
  table.build_tables[kT5] = build_tables_t5;
  table.build_tables[kB1] = build_tables_b1;
  table.table_bytes[kT3] = kT3TableBytes;
  table.table_bytes[kT5] = kT5TableBytes;
  table.table_bytes[kB1] = kB1TableBytes;
  table.gemv_dot[kI2] = ternary_gemv_dot_i8_i2_i32;
  table.gemv_dot[kT3] = ternary_gemv_dot_i8_t3_i32;
  table.gemv_dot[kT5] = ternary_gemv_dot_i8_t5_i32;
  table.gemv_dot[kB1] = ternary_gemv_dot_i8_b1_i32;
  table.gemv_rows = ternary_gemv_rows_i8_i2_i32;
  table.gemv_columns = ternary_gemv_columns_i8_i2_i32;
  table.gemm[kI2] = ternary_gemm_i8_i2_i32;
  table.gemm[kT3] = ternary_gemm_i8_t3_i32;
  table.gemm[kT5] = ternary_gemm_i8_t5_i32;
  table.gemm[kB1] = ternary_gemm_i8_b1_i32;
  // No record from an Arm machine yet: by instructions, counted in docs/adding-a-kernel.md. t5
  // reads 4 % less than t3, but its look-ups over four registers take many CPUs several cycles.
  table.auto_family[kI2] = GemvFamily::kDot;
  table.auto_family[kT3] = GemvFamily::kAddsub;
  table.auto_family[kT5] = GemvFamily::kAddsub;
  table.addsub_streams[kB1] = kB1Lanes;
  table.auto_packing = Packing::kT3;
  table.gemm_i8 = gemm_i8;
  set_head_planes(&table);
  table.read_streams = read_streams;
  table.f32 = make_float_kernels();
  return table;
}

}  // namespace neon
}  // namespace bitinfer
