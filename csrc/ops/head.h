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

// Which logits are wanted of each row: the k largest of ids below vocab_size, ties among them; k =
// 0: all, vocab_size = 0: of all ids.
struct TopTokens {
  int64_t k = 0;
  int64_t vocab_size = 0;
};

// logits (M, vocab) of normalised hidden states x (M, x_stride). Ids that are surely not among
// `top` may get -infinity; all others are exact.
void head_logits(const OpContext& ctx, const Head& head, const HeadScratch& scratch, const float* x,
                 int64_t x_stride, int64_t m, const TopTokens& top, float* logits);

// y (hidden) = row `token` of an embedding of rows (vocab, hidden).
void embed(const OpContext& ctx, const void* rows, FloatType type, int64_t hidden, int64_t token,
           float* y);

}  // namespace bitinfer
