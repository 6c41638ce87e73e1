// One packed matrix times int8 codes, with everything it needs allocated for the call: the form
// that the C library and the kernel tests use. The decoder keeps its buffers and uses ops/linear.h.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace bitinfer {

// acc (M, N) row-major = codes (M, codes_stride) x packed^T, by gemv of `family` for each of the M
// rows. codes_stride >= K; where it is activation_bytes(K) the rows are read in place and must be
// zero from K on, else they are copied. num_streams: 1..kMaxStreams far-apart streams of each
// thread.
struct TernaryMatmul {
  PackedTernary w;
  const int8_t* codes;
  int64_t codes_stride;
  int64_t m;
  int32_t* acc;
};

void ternary_gemv(const KernelTable& table, GemvFamily family, const TernaryMatmul& job,
                  int num_streams, int num_threads);
void ternary_gemm(const KernelTable& table, const TernaryMatmul& job, int num_threads);

}  // namespace bitinfer
