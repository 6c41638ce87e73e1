// The weights of a decoder: named tensors checked against its spec. Large tensors stay views of the
// caller's bytes; norms, biases and scales become fp32 copies.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/spec.h"
#include "ops/head.h"
#include "util/aligned_buffer.h"
#include "util/huge_memory.h"

namespace bitinfer {

// A named tensor as Python hands it over. dtype: "u8", "i8", "bf16", "f16", "f32", or the packing
// of a ternary matrix ("i2", "t3", "t5", shape (N, K)).
struct Tensor {
  const uint8_t* data;
  int64_t bytes;
  std::string dtype;
  std::vector<int64_t> shape;
};
using TensorMap = std::map<std::string, Tensor>;

// Gains of norms; those that the spec has not are null.
struct LayerWeights {
  const float* attention_norm;       // of the input of q, k and v
  const float* attention_post_norm;  // of what attention adds to the residual
  const float* ffn_norm;
  const float* ffn_post_norm;
  const float* q_norm;
  const float* k_norm;
  const float* attn_sub_norm;
  const float* ffn_sub_norm;
  Linear q, k, v, o, gate, up, down;
};

// The planes of a head and their memory.
struct SplitHead {
  HugeMemory high, low;
  AlignedBuffer<int32_t> residual;
  HeadPlanes planes;
};

struct DecoderWeights {
  Packing packing;  // of every ternary matrix
  const void* embedding;
  FloatType embedding_type;
  const float* inv_freq;        // (head_dim / 2)
  const float* local_inv_freq;  // (head_dim / 2), of sliding layers; null where the spec has none
  const float* norm;
  Head head;
  std::vector<LayerWeights> layers;

  // Bytes read for each token; of a two-plane head, its high plane only.
  int64_t ternary_bytes = 0;
  int64_t head_bytes = 0;
  int64_t float_bytes = 0;

  std::deque<AlignedBuffer<float>> owned;
  std::unique_ptr<SplitHead> split_head;
};

// Throws std::invalid_argument naming the tensor, what was expected and what was got: missing,
// wrong dtype, shape or size, not finite, unknown.
DecoderWeights load_weights(const DecoderSpec& spec, const TensorMap& tensors, int num_threads);

}  // namespace bitinfer
