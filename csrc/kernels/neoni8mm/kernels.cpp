// The neoni8mm row (ARMv8.6 matrix products): all GEMMs by smmla. All else is the neondot row's.
#include <arm_neon.h>

#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
#define BITINFER_INLINE inline __attribute__((always_inline))

namespace bitinfer {
namespace neondot {
KernelTable make_kernel_table();
}
namespace neoni8mm {
namespace {

// clang-format off: each uses the ones before it
#include "kernels/generic/token_blocks.inl.h"
#include "kernels/neon/unpack.inl.h"
#include "kernels/neondot/gemm.inl.h"
// clang-format on

// A sum vector is 2 rows x 2 tokens; the last of an odd number of tokens stands in for its partner.
struct MatrixMicro {
  static constexpr int kTokens = 8;  // 16 sums, 4 vectors of weights, 1 of activations

  template <int tokens>
  static inline void run(const int8_t* panel, int64_t columns, const int8_t* a, int64_t a_stride,
                         int64_t rows, int32_t* acc, int64_t acc_stride, bool add) {
    constexpr int kPairs = (tokens + 1) / 2;
    int32x4_t sum[kPairs][4];
    for (int t = 0; t < kPairs; ++t) {
      for (int p = 0; p < 4; ++p) sum[t][p] = vdupq_n_s32(0);
    }
    for (int64_t k = 0; k < columns; k += kPairColumns, panel += kGroupRows * kPairColumns) {
      int8x16_t w[4];
      for (int p = 0; p < 4; ++p) w[p] = vld1q_s8(panel + 16 * p);
      for (int t = 0; t < kPairs; ++t) {
        const int second = 2 * t + 1 < tokens ? 2 * t + 1 : 2 * t;
        const int8x16_t x =
            vcombine_s8(vld1_s8(a + 2 * t * a_stride + k), vld1_s8(a + second * a_stride + k));
        for (int p = 0; p < 4; ++p) sum[t][p] = vmmlaq_s32(sum[t][p], w[p], x);
      }
    }
    for (int t = 0; t < tokens; ++t, acc += acc_stride) {
      const int32x4_t* s = sum[t / 2];
      const int32x4_t low = t % 2 ? vuzp2q_s32(s[0], s[1]) : vuzp1q_s32(s[0], s[1]);
      const int32x4_t high = t % 2 ? vuzp2q_s32(s[2], s[3]) : vuzp1q_s32(s[2], s[3]);
      store_group(low, high, rows, acc, add);
    }
  }
};

template <Packing P>
void ternary_gemm_i8(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks, const int8_t* a,
                     int64_t a_stride, const int32_t* /*a_sum*/, int64_t m, int32_t* acc,
                     int64_t acc_stride, uint8_t* scratch) {
  gemm<P, MatrixMicro>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride,
                       reinterpret_cast<int8_t*>(scratch));
}

}  // namespace

KernelTable make_kernel_table() {
  KernelTable table = neondot::make_kernel_table();
  table.gemm[static_cast<int>(Packing::kI2)] = ternary_gemm_i8<Packing::kI2>;
  table.gemm[static_cast<int>(Packing::kT3)] = ternary_gemm_i8<Packing::kT3>;
  table.gemm[static_cast<int>(Packing::kT5)] = ternary_gemm_i8<Packing::kT5>;
  table.gemm[static_cast<int>(Packing::kB1)] = ternary_gemm_i8<Packing::kB1>;
  return table;
}

}  // namespace neoni8mm
}  // namespace bitinfer
