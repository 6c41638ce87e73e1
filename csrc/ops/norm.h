// RMSNorm and the quantization of its result, row by row.
#pragma once

#include "ops/linear.h"
#include "ops/op_context.h"

namespace bitinfer {

// Rows of x (a.m, x_stride), normalised with weight w (a.k), or as they are where w is null, to
// int8 codes. x_stride >= a.k; the thread's scratch row holds one normalised row.
void norm_quantize(const OpContext& ctx, const float* x, int64_t x_stride, const float* w,
                   float eps, QuantizedRows* a);

}  // namespace bitinfer
