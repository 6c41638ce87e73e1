// The avxvnni row: i2 dot and all GEMMs by vpdpbusd on 32-byte registers. All else is the avx2
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
namespace avx2 {
KernelTable make_kernel_table();
}
namespace avxvnni {
namespace {

// clang-format off: each uses the ones before it
#include "kernels/avx2/bytes.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/read_streams.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/generic/unpack_b1.inl.h"
#include "kernels/generic/unpack_t5.inl.h"
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/avxvnni/dot_words.h"
#include "kernels/generic/vnni_kernels.inl.h"
#include "kernels/generic/chosen_rows.inl.h"
#include "kernels/generic/gemm_few_i2.inl.h"
#include "kernels/generic/gemv_columns_vnni.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
#include "kernels/generic/gemm_i8.inl.h"
#include "kernels/generic/head_planes.inl.h"
// clang-format on

}  // namespace

#include "kernels/generic/dot_symbols.inl.h"
#include "kernels/generic/head_plane_symbols.inl.h"
#include "kernels/generic/vnni_symbols.inl.h"

KernelTable make_kernel_table() {
  KernelTable table = avx2::make_kernel_table();
  set_vnni_symbols(&table);
  table.gemv_tokens[static_cast<int>(Packing::kT3)] = 8;
  set_head_planes(&table);
  return table;
}

}  // namespace avxvnni
}  // namespace bitinfer
