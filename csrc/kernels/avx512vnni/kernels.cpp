// The avx512vnni row: i2 dot and all GEMMs by vpdpbusd, b1 by table look-ups. The other addsub
// kernels are the avx2 row's.
//
// GCC 12 takes the headers' undefined vectors for a mistake of ours (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
// clang-format off: the vocabulary first
#include "kernels/avx512vnni/simd.h"
#include "kernels/generic/float_kernels.inl.h"
// clang-format on

#define BITINFER_INLINE inline __attribute__((always_inline))
#define BITINFER_SYMBOL __attribute__((noinline))

namespace bitinfer {
namespace avx2 {
KernelTable make_kernel_table();
}
namespace avx512vnni {
namespace {

// clang-format off: each uses the ones before it
#include "kernels/avx512vnni/words.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/read_streams.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/avx512vnni/unpack_b1.inl.h"
#include "kernels/generic/unpack_t5.inl.h"
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/avx512vnni/dot_words.h"
#include "kernels/generic/vnni_kernels.inl.h"
#include "kernels/generic/chosen_rows.inl.h"
#include "kernels/generic/gemm_few_i2.inl.h"
#include "kernels/avx512vnni/gemv_groups.inl.h"
#include "kernels/generic/gemv_columns_vnni.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
#include "kernels/generic/gemm_i8.inl.h"
#include "kernels/avx512vnni/bytes.h"
#include "kernels/generic/byte_sums.inl.h"
#include "kernels/generic/ternary_gemv_addsub_b1.inl.h"
#include "kernels/generic/head_planes.inl.h"
// clang-format on

constexpr int kB1Lanes = 8;

}  // namespace

#include "kernels/generic/dot_symbols.inl.h"
#include "kernels/generic/head_plane_symbols.inl.h"
#include "kernels/generic/vnni_symbols.inl.h"

BITINFER_SYMBOL void ternary_gemv_addsub_i8_b1_i32(const TileStreams& streams, int64_t num_blocks,
                                                   const Activation& a) {
  for_each_lane_group<kB1Lanes>(streams, num_blocks << 6, kB1Rows, [&](const auto& lanes) {
    b1_lane_group(lanes, num_blocks, a.tables);
  });
}

BITINFER_SYMBOL void ternary_gemv_groups_i8_i2_i32(const uint8_t* rows, int64_t n, int groups,
                                                   const GroupActivation& a, int32_t* acc,
                                                   int64_t acc_stride) {
  if (groups == 2) return gemv_groups_i2<2>(rows, n, a, acc, acc_stride);
  gemv_groups_i2<4>(rows, n, a, acc, acc_stride);
}

KernelTable make_kernel_table() {
  KernelTable table = avx2::make_kernel_table();
  set_vnni_symbols(&table);
  table.gemv_groups = ternary_gemv_groups_i8_i2_i32;
  table.gemv_addsub[static_cast<int>(Packing::kB1)] = ternary_gemv_addsub_i8_b1_i32;
  table.gemv_tokens[static_cast<int>(Packing::kT3)] = 4;
  table.addsub_streams[static_cast<int>(Packing::kB1)] = kB1Lanes;
  set_head_planes(&table);
  table.f32 = make_float_kernels();
  return table;
}

}  // namespace avx512vnni
}  // namespace bitinfer
