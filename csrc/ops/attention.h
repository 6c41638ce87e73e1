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

constexpr int64_t kNoWindow = int64_t{1} << 62;

// One layer's attention over a batch of tokens.
struct AttentionCall {
  const OpContext& ctx;
  const AttentionShape& shape;
  const TokenPosition* tokens;  // (M)
  int64_t layer;
  int64_t window;    // a token at pos sees (pos - window, pos]; kNoWindow: all
  float* q;          // (M, heads · head_dim)
  float* q_factors;  // (M, heads), of prepared q
  float* out;        // (M, heads · head_dim)
};

// Floats that attend() needs per thread, and shared by all.
int64_t attention_row_elements(const AttentionShape& shape);
int64_t attention_partial_elements(const AttentionShape& shape);

// Rotates q and k (M, kv_heads · head_dim) in place, prepares q for its cache, and stores k, v in
// the caches. cos, sin: (M, head_dim / 2).
void rotate_and_append(const AttentionCall& call, int64_t m, const float* cos, const float* sin,
                       float* k, const float* v);

// out = attention of prepared q over the caches, each token seeing the positions up to its own that
// the window holds. partials: attention_partial_elements.
void attend(const AttentionCall& call, const TokenRun* runs, int64_t num_runs, float* partials);

}  // namespace bitinfer
