// Norms and the quantization of their results, row by row.
#pragma once

#include "ops/linear.h"
#include "ops/op_context.h"

namespace bitinfer {

enum class NormKind : int { kNone = 0, kRms = 1, kLayer = 2 };

// A norm over rows of K values; weight: (K), of kRms only.
struct Norm {
  NormKind kind = NormKind::kNone;
  const float* weight = nullptr;
  float eps = 0.0f;
};

// y = norm(x) of one row (k), norm not kNone.
void norm_row(const FloatKernels& f32, const float* x, int64_t k, const Norm& norm, float* y);

// y = norm(x) of rows (m, k); y may be x.
void norm_rows(const OpContext& ctx, const float* x, int64_t m, int64_t k, const Norm& norm,
               float* y);

// Rows of norm(x) (a.m, a.k) to int8 codes of `levels` (127 or 128). The thread's scratch row holds
// one normalised row.
void norm_quantize(const OpContext& ctx, const float* x, const Norm& norm, int levels,
                   QuantizedRows* a);

}  // namespace bitinfer
