// The activations of one chunk of tokens and the forward step over them. Private to the decoder.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/decoder.h"
#include "model/sparse_ffn.h"
#include "ops/op_context.h"

namespace bitinfer {

struct Decoder::State {
  // sparse: null for the dense FFN; outlives the state.
  State(const DecoderSpec& spec, Packing packing, int num_threads, int64_t max_tokens,
        SparseFfn* sparse);

  // A forward call starts: kernels may have been switched since the last one.
  void begin(const KernelTable& kernels, const GemvChoice& gemv, const TopTokens& top,
             RowKind kind);
  void add_token(int32_t token_id, const KvCache& cache, int64_t pos, bool wants_row);
  int64_t size() const { return m_; }
  // Null where the head is not in two planes. Counts from `begin` on.
  const PlaneScratch* plane_scratch() const { return plane_scratch_.get(); }
  // Runs the tokens added since the last run and writes a row for each that wants one; returns the
  // end of the rows written.
  float* run(const DecoderWeights& weights, float* out);

 private:
  // RoPE of each token: (M, head_dim / 2) each.
  struct Turns {
    AlignedBuffer<float> sin, cos;
  };
  void turn(const float* inv_freq, int64_t token, Turns* out);
  void embed_tokens(const DecoderWeights& weights);
  void attention_step(const LayerWeights& layer, int64_t index);
  void mlp_step(const LayerWeights& layer, int64_t index);
  float* head_step(const DecoderWeights& weights, float* out);
  Norm rms(const float* weight) const;
  void run_layers(const float* x, int64_t k, const Norm& norm, const LinearOutput* outputs,
                  int count);
  const QuantizedRows& quantize(const float* x, int64_t k, const Norm& norm);
  void project(const float* x, int64_t k, const float* norm, const LinearOutput* outputs,
               int count);
  void project_onto_residual(const float* x, int64_t k, const float* norm, const Linear& layer,
                             const float* post_norm);
  void feed_forward(const LayerWeights& layer, int64_t index);

  const DecoderSpec spec_;
  const AttentionShape shape_;
  std::vector<ThreadScratch> scratch_;
  OpContext ctx_;
  TopTokens top_;
  RowKind kind_ = RowKind::kLogits;

  int64_t m_ = 0, num_runs_ = 0;
  std::vector<int32_t> token_ids_;     // (M)
  std::vector<TokenPosition> tokens_;  // (M)
  std::vector<TokenRun> runs_;         // (M)
  std::vector<bool> wants_row_;        // (M)
  AlignedBuffer<float> angles_;        // (M, head_dim / 2)
  Turns turns_, local_turns_;
  AlignedBuffer<float> x_;          // (M, hidden)
  AlignedBuffer<float> q_;          // (M, heads * head_dim)
  AlignedBuffer<float> q_factors_;  // (M, heads)
  AlignedBuffer<float> attn_;       // (M, heads * head_dim)
  AlignedBuffer<float> k_, v_;      // (M, kv_heads * head_dim)
  AlignedBuffer<float> mlp_;        // (M, intermediate)
  AlignedBuffer<float> gate_;       // (M, intermediate), where it is stored as a whole
  AlignedBuffer<float> normed_;     // (M, widest row), where projections have norms
  AlignedBuffer<float> added_;      // (M, hidden), where the residual has norms
  AlignedBuffer<float> partials_;   // attention's
  AlignedBuffer<int8_t> codes_;     // (M, activation_bytes of the widest row)
  AlignedBuffer<int32_t> sums_;     // (2 M)
  AlignedBuffer<float> scales_;     // (M)
  QuantizedRows rows_;
  std::unique_ptr<PlaneScratch> plane_scratch_;
  std::unique_ptr<GroupedLinears> grouped_;  // where the spec is grouped
  SparseFfn* sparse_;
  std::vector<NeuronScratch> neurons_;  // of each thread, where sparse_ is
};

}  // namespace bitinfer
