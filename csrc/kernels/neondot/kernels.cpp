// The neondot row (ARMv8.2 dot products): i2 dot, all GEMMs and the head by sdot. All else is the
// neon row's.
#include <arm_neon.h>

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
#define BITINFER_INLINE inline __attribute__((always_inline))

namespace bitinfer {
namespace neon {
KernelTable make_kernel_table();
}
namespace neondot {
namespace {

// clang-format off: each uses the ones before it
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/neon/unpack.inl.h"
#include "kernels/neondot/gemm.inl.h"
#include "kernels/neondot/dot_kernels.inl.h"
// clang-format on

constexpr int kI2DotLanes = 4;

template <Packing P>
void ternary_gemm_i8(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks, const int8_t* a,
                     int64_t a_stride, const int32_t* /*a_sum*/, int64_t m, int32_t* acc,
                     int64_t acc_stride, uint8_t* scratch) {
  gemm<P, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride,
                    reinterpret_cast<int8_t*>(scratch));
}

}  // namespace

void ternary_gemv_dot_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(Packing::kI2)];
  for_each_lane_group<kI2DotLanes>(streams, num_blocks * kLayout.block_bytes, kLayout.tile_rows,
                                   [&](const auto& lanes) { i2_dot_lanes(lanes, num_blocks, a); });
}

void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
             const int32_t* /*a_sum*/, int64_t m, int64_t k_padded, int32_t* acc,
             int64_t acc_stride) {
  const auto rows_of = [&](auto rows, int64_t row) {
    for_each_token_block<4>(0, m, [&](auto tokens, int64_t t) {
      head_rows<decltype(rows)::value, decltype(tokens)::value>(
          w + row * k_padded, k_padded, a + t * a_stride, a_stride, acc + t * acc_stride + row,
          acc_stride);
    });
  };
  int64_t row = 0;
  for (; row + 4 <= n; row += 4) rows_of(Constant<4>(), row);
  for (; row < n; ++row) rows_of(Constant<1>(), row);
}

KernelTable make_kernel_table() {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  KernelTable table = neon::make_kernel_table();
  table.gemv_dot[kI2] = ternary_gemv_dot_i8_i2_i32;
  table.gemm[kI2] = ternary_gemm_i8<Packing::kI2>;
  table.gemm[static_cast<int>(Packing::kT3)] = ternary_gemm_i8<Packing::kT3>;
  table.gemm[static_cast<int>(Packing::kT5)] = ternary_gemm_i8<Packing::kT5>;
  table.gemm[static_cast<int>(Packing::kB1)] = ternary_gemm_i8<Packing::kB1>;
  table.dot_streams[kI2] = kI2DotLanes;
  // No record from an Arm machine yet: by instructions, counted in docs/adding-a-kernel.md.
  table.auto_packing = Packing::kI2;
  table.gemm_i8 = gemm_i8;
  return table;
}

}  // namespace neondot
}  // namespace bitinfer
