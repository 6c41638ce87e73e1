// The avx512vnni row: i2 dot and all GEMMs by vpdpbusd. The addsub kernels are the avx2 row's.
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

constexpr int kPrefetchAhead = 1024;  // bytes ahead of the present read, in every stream

// clang-format off: each uses the ones before it
#include "kernels/avx512vnni/words.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/read_streams.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/avx512vnni/dot_kernels.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
#include "kernels/generic/gemm_i8.inl.h"
// clang-format on

}  // namespace

#include "kernels/generic/ternary_gemm_symbols.inl.h"

BITINFER_SYMBOL void ternary_gemv_dot_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  for_each_lane_group<8>(streams, num_blocks * kI2BlockBytes, 1,
                         [&](const auto& lanes) { i2_dot_lanes(lanes, num_blocks, a); });
}

BITINFER_SYMBOL void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                             const int32_t* a_sum, int64_t m, int64_t k_padded, int32_t* acc,
                             int64_t acc_stride) {
  gemm_i8_by_rows(w, n, a, a_stride, a_sum, m, k_padded, acc, acc_stride);
}

BITINFER_SYMBOL uint32_t read_streams(const uint8_t* data, int64_t bytes, int num_streams) {
  return read_streams_by_count(data, bytes, num_streams);
}

KernelTable make_kernel_table() {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  constexpr int kT3 = static_cast<int>(Packing::kT3);
  constexpr int kT5 = static_cast<int>(Packing::kT5);
  KernelTable table = avx2::make_kernel_table();
  table.gemv_dot[kI2] = ternary_gemv_dot_i8_i2_i32;
  table.gemv_dot[kT3] = ternary_gemv_dot_i8_t3_i32;
  table.gemv_dot[kT5] = ternary_gemv_dot_i8_t5_i32;
  table.gemm[kI2] = ternary_gemm_i8_i2_i32;
  table.gemm[kT3] = ternary_gemm_i8_t3_i32;
  table.gemm[kT5] = ternary_gemm_i8_t5_i32;
  table.auto_packing = Packing::kI2;
  table.gemm_i8 = gemm_i8;
  table.read_streams = read_streams;
  table.f32 = make_float_kernels();
  return table;
}

}  // namespace avx512vnni
}  // namespace bitinfer
