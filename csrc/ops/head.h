// The output head: hidden states to logits.
#pragma once

#include <cstdint>

#include "kernels/float_kernels.h"
#include "ops/op_context.h"
#include "pack/head_planes.h"
#include "util/aligned_buffer.h"

namespace bitinfer {

// An int8 head in two planes.
struct HeadPlanes {
  HeadSplit split;
  const uint8_t* high;      // (vocab, high_row_bytes)
  const uint8_t* low;       // (vocab, low_row_bytes)
  const int32_t* residual;  // (vocab)
};

// int8: codes (vocab, round_up(hidden, 64)), or the same in `planes`, with a scale per row, against
// activations of 15 bits in two planes. Where both are null, rows (vocab, hidden) of `type` are
// multiplied in fp32. Caller keeps the bytes.
struct Head {
  const int8_t* codes;
  const HeadPlanes* planes;  // row_scale >= 0 then
  const float* row_scale;    // (vocab)
  const void* rows;
  FloatType type;
  int64_t vocab;
  int64_t hidden;
};

constexpr int64_t kMaxPlaneTokens = 8;  // more at once read both planes of every row

// Work space of head_logits on a two-plane head, and what it counts.
struct PlaneScratch {
  PlaneScratch(int64_t vocab, int64_t hidden);
  AlignedBuffer<int32_t> bounds;   // (kMaxPlaneTokens, 2, hidden + 1)
  AlignedBuffer<uint16_t> order;   // (2 hidden)
  AlignedBuffer<float> group_max;  // (kMaxPlaneTokens, groups of rows)
  AlignedBuffer<int32_t> rows;     // whose exact logits are wanted
  AlignedBuffer<float> values;     // and are these
  AlignedBuffer<float> sorted;
  int64_t candidates = 0;  // rows whose low plane was read, of all calls so far
  int64_t bytes_read = 0;  // of the head, by all calls so far
};

// Planes of the hidden states, for head_logits: hi and lo of a row follow each other.
struct HeadScratch {
  int8_t* codes;         // (2 M, plane_columns(hidden))
  int32_t* sums;         // (2 M)
  float* scales;         // (M)
  PlaneScratch* planes;  // null where the head has none
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
