// The avx512vbmi row: t5 by 128-entry table look-ups, for sums and for unpacking. Everything else
// is the avx512vnni row's.
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
namespace avx512vnni {
KernelTable make_kernel_table();
}
namespace avx512vbmi {
namespace {

// clang-format off: each uses the ones before it
#include "kernels/avx512vnni/words.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/lane_groups.inl.h"
#include "kernels/generic/unpack_panel.inl.h"
#include "kernels/avx512vnni/unpack_b1.inl.h"
#include "kernels/avx512vbmi/unpack_t5.inl.h"
#include "kernels/avx512vbmi/ternary_gemv_t5.inl.h"
#include "kernels/avx512vbmi/build_tables_t5.inl.h"
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/avx512vnni/dot_words.h"
#include "kernels/avx512vbmi/gemm_few_t5.inl.h"
#include "kernels/generic/vnni_kernels.inl.h"
#include "kernels/generic/ternary_gemm.inl.h"
// clang-format on

constexpr int kT5Lanes = 4;

}  // namespace

BITINFER_SYMBOL void build_tables_i8_t5(const int8_t* codes, int64_t block_begin, int64_t block_end,
                                        uint8_t* tables) {
  build_t5_tables(codes, block_begin, block_end, tables);
}

BITINFER_SYMBOL void ternary_gemv_addsub_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                                   const Activation& a) {
  for_each_lane_group<kT5Lanes>(streams, num_blocks << 6, kT5Rows,
                                [&](const auto& lanes) { t5_lanes(lanes, num_blocks, a.tables); });
}

BITINFER_SYMBOL void ternary_gemv_dot_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  gemv_few_t5(streams, num_blocks, a);
}

BITINFER_SYMBOL void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  if (m <= kMostFewTokens)
    return gemm_few_t5(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                       scratch, kGemmScratchBytes);
  gemm<Packing::kT5, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                               scratch, kGemmPieceK);
}

KernelTable make_kernel_table() {
  constexpr int kT5 = static_cast<int>(Packing::kT5);
  KernelTable table = avx512vnni::make_kernel_table();
  table.gemv_addsub[kT5] = ternary_gemv_addsub_i8_t5_i32;
  table.build_tables[kT5] = build_tables_i8_t5;
  table.table_bytes[kT5] = kT5TableBytes;
  table.gemv_dot[kT5] = ternary_gemv_dot_i8_t5_i32;
  table.gemm[kT5] = ternary_gemm_i8_t5_i32;
  table.auto_family[kT5] = GemvFamily::kDot;
  table.gemv_tokens[kT5] = 1;
  table.addsub_streams[kT5] = kT5Lanes;
  table.dot_streams[kT5] = 1;
  table.auto_packing = Packing::kT5;
  return table;
}

}  // namespace avx512vbmi
}  // namespace bitinfer
