// The amx row: GEMM by AMX-INT8 tiles. Everything else is the avx512vbmi row's.
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

#define BITINFER_INLINE inline __attribute__((always_inline))
#define BITINFER_SYMBOL __attribute__((noinline))

namespace bitinfer {
namespace avx512vbmi {
KernelTable make_kernel_table();
}
namespace amx {
namespace {

constexpr int kPrefetchAhead = 1024;  // bytes ahead of the present read, in every stream

// clang-format off: each uses the ones before it
#include "kernels/avx512vnni/words.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/avx512vbmi/unpack_t5.inl.h"
#include "kernels/avx512vnni/dot_words.h"
#include "kernels/generic/vnni_kernels.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
#include "kernels/amx/tile_micro.inl.h"
// clang-format on

}  // namespace

BITINFER_SYMBOL void ternary_gemm_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  tile_gemm<Packing::kI2>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                          scratch);
}

BITINFER_SYMBOL void ternary_gemm_i8_t3_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  tile_gemm<Packing::kT3>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                          scratch);
}

BITINFER_SYMBOL void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  tile_gemm<Packing::kT5>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                          scratch);
}

KernelTable make_kernel_table() {
  KernelTable table = avx512vbmi::make_kernel_table();
  table.gemm[static_cast<int>(Packing::kI2)] = ternary_gemm_i8_i2_i32;
  table.gemm[static_cast<int>(Packing::kT3)] = ternary_gemm_i8_t3_i32;
  table.gemm[static_cast<int>(Packing::kT5)] = ternary_gemm_i8_t5_i32;
  return table;
}

}  // namespace amx
}  // namespace bitinfer
