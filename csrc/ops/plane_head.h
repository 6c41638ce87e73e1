// The two-plane head: the high plane of every row, the low plane of those that may be among the
// largest. Private to ops/head.cpp.
#pragma once

#include <cstdint>

#include "ops/head.h"
#include "ops/op_context.h"

namespace bitinfer {

// logits as head_logits; states.codes, sums and scales hold the M quantized states. Where all
// logits are wanted, or so many rows are in doubt that it does not pay, both planes of every row
// are read.
void plane_logits(const OpContext& ctx, const Head& head, const HeadScratch& states, int64_t m,
                  const TopTokens& top, float* logits);

}  // namespace bitinfer
