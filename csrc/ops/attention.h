// RoPE, the append to the KV cache, and attention over it in blocks of kKvBlock positions joined in
// order (kernels/float_kernels.h fixes the arithmetic), for a batch of tokens of several sequences.
#pragma once

#include <cstdint>

#include "ops/kv_layout.h"
#include "ops/op_context.h"

namespace bitinfer {

// One token of the batch; the tokens of a sequence follow each other in order of position.
struct TokenPosition {
  const KvLayout* layout;
  uint8_t* const* blocks;  // of its sequence's cache
  int64_t pos;
};

struct AttentionShape {
  int64_t heads;  // a multiple of kv_heads
  int64_t kv_heads;
  int64_t head_dim;

  int64_t group() const { return heads / kv_heads; }
  int64_t padded_dim() const { return round_up(head_dim, 16); }
};

// Neighbouring tokens [first, first + count) of one sequence that share each load of a block.
struct TokenRun {
  int64_t first;
  int64_t count;
};

// Cuts tokens [0, m) into runs; returns their number. runs: (m).
int64_t find_runs(const AttentionShape& shape, const TokenPosition* tokens, int64_t m,
                  TokenRun* runs);

// Floats that attend() needs per thread, and shared by all.
int64_t attention_row_elements(const AttentionShape& shape);
int64_t attention_partial_elements(const AttentionShape& shape);

// Rotates q (M, heads · head_dim) and k (M, kv_heads · head_dim) in place and stores k, v in
// `layer` of the caches. cos, sin: (M, head_dim / 2).
void rotate_and_append(const OpContext& ctx, const AttentionShape& shape,
                       const TokenPosition* tokens, int64_t m, int64_t layer, const float* cos,
                       const float* sin, float* q, float* k, const float* v);

// out (M, heads · head_dim) = attention of q over `layer` of the caches, each token seeing
// positions 0..pos. partials: attention_partial_elements.
void attend(const OpContext& ctx, const AttentionShape& shape, const TokenPosition* tokens,
            const TokenRun* runs, int64_t num_runs, int64_t layer, const float* q, float* partials,
            float* out);

}  // namespace bitinfer
