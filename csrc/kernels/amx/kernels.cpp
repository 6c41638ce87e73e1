// The amx row: GEMMs by AMX-INT8 tiles. Everything else is the avx512vbmi row's.
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

// clang-format off: each uses the ones before it
#include "kernels/avx512vnni/words.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/avx512vnni/unpack_b1.inl.h"
#include "kernels/avx512vbmi/unpack_t5.inl.h"
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/avx512vnni/dot_words.h"
#include "kernels/avx512vbmi/gemm_few_t5.inl.h"
#include "kernels/generic/vnni_kernels.inl.h"
#include "kernels/generic/gemm_few_i2.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
#include "kernels/generic/gemm_i8.inl.h"
#include "kernels/amx/tile_micro.inl.h"
#include "kernels/amx/gemm_i8.inl.h"
// clang-format on

}  // namespace

KernelTable make_kernel_table() {
  constexpr int kT5 = static_cast<int>(Packing::kT5);
  KernelTable table = avx512vbmi::make_kernel_table();
  table.auto_family[kT5] = GemvFamily::kAddsub;  // Intel's CPUs have one port for look-ups
  table.gemv_tokens[kT5] = 2;
  table.gemm[static_cast<int>(Packing::kI2)] = ternary_gemm_i8<Packing::kI2>;
  table.gemm[static_cast<int>(Packing::kT3)] = ternary_gemm_i8<Packing::kT3>;
  table.gemm[kT5] = ternary_gemm_i8<Packing::kT5>;
  table.gemm[static_cast<int>(Packing::kB1)] = ternary_gemm_i8<Packing::kB1>;
  table.gemv_tokens[static_cast<int>(Packing::kB1)] = 4;
  table.gemm_i8 = gemm_i8;
  table.multiply_peak = multiply_peak;
  return table;
}

}  // namespace amx
}  // namespace bitinfer
