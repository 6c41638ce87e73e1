// What checkpoints hold, straight to what the engine reads: no whole copy in another type is ever
// made.
//
// Floats are read in place, any alignment. NaN and infinity are refused with row and column
// (std::invalid_argument). The results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <string>

#include "pack/format.h"
#include "util/float_type.h"

namespace bitinfer {

FloatType float_type_from_name(const std::string& name);  // "f32", "f16", "bf16"

// A float matrix (N, K), row-major; the caller keeps `data` alive.
struct FloatMatrix {
  const uint8_t* data;
  FloatType type;
  int64_t n;
  int64_t k;
};

// A view of `num_bytes` bytes; refuses a size that is not that of (n, k).
FloatMatrix float_matrix(const uint8_t* data, int64_t num_bytes, const std::string& dtype,
                         int64_t n, int64_t k);

// Hugging Face 2-bit weights (R, K), R = ceil(N/4): bits 2i+1..2i of hf[r][c] are the code (w + 1)
// of row i*R + r, column c. Code 3 in a row below N is refused.
void pack_hf(const uint8_t* hf, int64_t n, int64_t k, Packing packing, uint8_t* packed,
             int num_threads);

// Absmean ternarization of master weights: s = mean|W| (double sums, row by row), r = 1 / max(s,
// 1e-5) in fp32, w = clamp(round_half_even(W * r), -1, 1). Returns the weight_scale 1 / r that
// multiplies.
float pack_absmean(const FloatMatrix& w, Packing packing, uint8_t* packed, int num_threads);

// Rows to int8: scales[n] = absmax / 127, codes (N, round_up(K, 64)) = rint(W * (127 / absmax)) in
// -127..127, zero from K on. A row whose absmax is 0, or so small that 127 / absmax is not finite,
// is all zero with scale 0.
void quantize_rows_i8(const FloatMatrix& w, int8_t* codes, float* scales, int num_threads);

}  // namespace bitinfer
