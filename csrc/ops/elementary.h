// Elementary functions that give the same bits on every machine: plain double arithmetic in one
// fixed order. Not for speed: RoPE angles and model set-up. exp in fp32 is a kernel
// (kernels/float_kernels.h).
#pragma once

#include <cstdint>

namespace bitinfer {

// Sine and cosine of each fp32 angle, computed in double and rounded to fp32. NaN where |angle| >
// 2^24.
void sin_cos(const float* angles, int64_t n, float* sin, float* cos);

// base^exponent = exp(exponent · ln(base)), relative error < 1e-13 while |exponent · ln(base)| <
// 100. base > 0 and both finite, else NaN; 0 below 2^-1022, inf above 2^1023.
double pow(double base, double exponent);

}  // namespace bitinfer
