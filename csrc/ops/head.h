// The output head: hidden states to logits.
#pragma once

#include <cstdint>

#include "kernels/float_kernels.h"
#include "ops/op_context.h"

namespace bitinfer {

// int8: codes (vocab, round_up(hidden, 64)) with a scale per row, against activations of 15 bits in
// two planes. Otherwise codes is null and rows (vocab, hidden) of `type` are multiplied in fp32.
// Caller keeps the bytes.
struct Head {
  const int8_t* codes;
  const float* row_scale;  // (vocab)
  const void* rows;
  FloatType type;
  int64_t vocab;
  int64_t hidden;
};

// Planes of the hidden states, for head_logits: hi and lo of a row follow each other.
struct HeadScratch {
  int8_t* codes;  // (2 M, round_up(hidden, 64))
  int32_t* sums;  // (2 M)
  float* scales;  // (M)
};

// logits (M, vocab) of normalised hidden states x (M, x_stride).
void head_logits(const OpContext& ctx, const Head& head, const HeadScratch& scratch, const float* x,
                 int64_t x_stride, int64_t m, float* logits);

// y (hidden) = row `token` of an embedding of rows (vocab, hidden).
void embed(const OpContext& ctx, const void* rows, FloatType type, int64_t hidden, int64_t token,
           float* y);

}  // namespace bitinfer
