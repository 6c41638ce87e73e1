// What differs between families of models, as data. Names are Hugging Face's (docs:
// bitinfer/families).
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "ops/attention.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "pack/head_planes.h"

namespace bitinfer {

struct DecoderSpec {
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t num_hidden_layers;
  int64_t num_attention_heads;
  int64_t num_key_value_heads;
  int64_t head_dim;
  float rms_norm_eps;
  HiddenAct hidden_act;
  std::vector<bool> sliding;   // of each layer: attention in the window; empty: none
  int64_t sliding_window = 0;  // positions that a token of such a layer sees, its own among them
  bool local_rope = false;     // such layers turn by a table of their own
  float rope_factor = 1.0f;    // of all cosines and sines (YaRN's attention_factor)
  bool attn_sub_norm;          // RMSNorm on the joined heads, before o_proj
  bool ffn_sub_norm;           // RMSNorm on act(gate) · up, before down_proj
  bool qk_norm = false;        // RMSNorm on each head of q and k, before RoPE
  bool post_norms = false;     // RMSNorm on what attention and FFN add to the residual
  NormKind projection_norm = NormKind::kNone;  // of each projection's own input
  float projection_norm_eps = 0.0f;
  float embedding_multiplier = 1.0f;
  int activation_levels = 127;     // of a code: 127, 128 or 16383
  ScaleGroups scale_groups;        // none: each matrix has one weight scale
  bool activation_groups = false;  // each group is normed and quantized on its own
  bool attention_bias;             // q, k, v have biases (any projection may have one)
  bool tie_word_embeddings;
  bool int8_head;                       // else the head's rows are floats
  std::optional<HeadSplit> head_split;  // of an int8 head: how to keep it in two planes

  bool slides(int64_t layer) const {
    return !sliding.empty() && sliding[static_cast<std::size_t>(layer)];
  }
  bool grouped() const {  // the ternary layers are those of ops/grouped_linear.h
    return scale_groups.size || scale_groups.count || activation_levels == kTwoPlaneLevels;
  }
  int64_t widest_row() const { return std::max({hidden_size, q_dim(), intermediate_size}); }
  int64_t q_dim() const { return num_attention_heads * head_dim; }
  int64_t kv_dim() const { return num_key_value_heads * head_dim; }
  AttentionShape attention() const { return {num_attention_heads, num_key_value_heads, head_dim}; }
};

// Throws std::invalid_argument naming the first number that no model can have.
void check_spec(const DecoderSpec& spec);

}  // namespace bitinfer
