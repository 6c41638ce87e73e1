#include "model/forward_state.h"

#include <algorithm>

#include "ops/attention.h"
#include "ops/elementary.h"
#include "ops/head.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

template <typename T>
AlignedBuffer<T> buffer(int64_t count) {
  return AlignedBuffer<T>(static_cast<std::size_t>(count));
}

bool has_projection_norms(const DecoderSpec& s) { return s.projection_norm != NormKind::kNone; }

// Whether gate and up are not multiplied piece by piece.
bool has_whole_gate(const DecoderSpec& s) { return has_projection_norms(s) || s.grouped(); }

// Look-up tables of as many rows of activations as have them at once, the widest ones, on the row
// of kernels that needs most, since the row may change between calls.
int64_t most_table_bytes(const DecoderSpec& s, Packing packing) {
  int64_t most = 0;
  for (const std::string& isa : available_isas()) {
    const KernelTable& table = table_of(isa);
    const int64_t tokens = std::min(table.gemv_tokens[static_cast<int>(packing)], kMaxGemvTokens);
    most = std::max(most, tokens * table.table_bytes[static_cast<int>(packing)]);
  }
  return most * num_blocks(packing, s.widest_row());
}

ThreadScratch make_scratch(const DecoderSpec& s, Packing packing, int64_t max_tokens) {
  const int64_t row =
      std::max({s.widest_row(), attention_row_elements(s.attention()), acc_elements(1)});
  const int64_t tables = s.grouped() ? 0 : most_table_bytes(s, packing);
  return {buffer<uint8_t>(kGemmScratchBytes), buffer<int32_t>(acc_elements(max_tokens)),
          buffer<float>(row), buffer<uint8_t>(tables)};
}

}  // namespace

Decoder::State::State(const DecoderSpec& spec, Packing packing, int num_threads, int64_t max_tokens,
                      SparseFfn* sparse)
    : spec_(spec),
      shape_(spec.attention()),
      ctx_{nullptr, packing, {}, num_threads, &scratch_},
      angles_(buffer<float>(max_tokens * spec.head_dim / 2)),
      turns_{buffer<float>(max_tokens * spec.head_dim / 2),
             buffer<float>(max_tokens * spec.head_dim / 2)},
      local_turns_{buffer<float>(spec.local_rope ? max_tokens * spec.head_dim / 2 : 0),
                   buffer<float>(spec.local_rope ? max_tokens * spec.head_dim / 2 : 0)},
      x_(buffer<float>(max_tokens * spec.hidden_size)),
      q_(buffer<float>(max_tokens * spec.q_dim())),
      q_factors_(buffer<float>(max_tokens * spec.num_attention_heads)),
      attn_(buffer<float>(max_tokens * std::max(spec.q_dim(), spec.hidden_size))),
      k_(buffer<float>(max_tokens * spec.kv_dim())),
      v_(buffer<float>(max_tokens * spec.kv_dim())),
      mlp_(buffer<float>(max_tokens * spec.intermediate_size)),
      gate_(buffer<float>(has_whole_gate(spec) ? max_tokens * spec.intermediate_size : 0)),
      normed_(buffer<float>(has_projection_norms(spec) ? max_tokens * spec.widest_row() : 0)),
      added_(buffer<float>(spec.post_norms ? max_tokens * spec.hidden_size : 0)),
      partials_(buffer<float>(attention_partial_elements(shape_))),
      codes_(buffer<int8_t>(max_tokens * std::max(activation_bytes(spec.widest_row()),
                                                  2 * plane_columns(spec.hidden_size)))),
      sums_(buffer<int32_t>(2 * max_tokens)),
      scales_(buffer<float>(max_tokens)),
      rows_{0, 0, 0, codes_.data(), sums_.data(), scales_.data(), 0},
      sparse_(sparse) {
  for (int i = 0; i < num_threads; ++i) {
    scratch_.push_back(make_scratch(spec, packing, max_tokens));
    if (sparse) neurons_.emplace_back(spec.intermediate_size, spec.hidden_size);
  }
  if (spec.grouped()) {
    const GroupedShape shape{packing, spec.scale_groups, spec.activation_levels,
                             spec.activation_groups};
    grouped_ = std::make_unique<GroupedLinears>(shape, num_threads, max_tokens, spec.widest_row());
  }
  if (spec.head_split)
    plane_scratch_ = std::make_unique<PlaneScratch>(spec.vocab_size, spec.hidden_size);
  const auto count = static_cast<std::size_t>(max_tokens);
  token_ids_.resize(count);
  tokens_.resize(count);
  runs_.resize(count);
  wants_row_.resize(count);
}

void Decoder::State::begin(const KernelTable& kernels, const GemvChoice& gemv, const TopTokens& top,
                           RowKind kind) {
  ctx_.kernels = &kernels;
  ctx_.gemv = gemv;
  top_ = top;
  kind_ = kind;
  if (plane_scratch_) plane_scratch_->candidates = plane_scratch_->bytes_read = 0;
  m_ = 0;
}

void Decoder::State::add_token(int32_t token_id, const KvCache& cache, int64_t pos,
                               bool wants_row) {
  const auto i = static_cast<std::size_t>(m_++);
  token_ids_[i] = token_id;
  tokens_[i] = {&cache.layout(), cache.blocks(), pos};
  wants_row_[i] = wants_row;
}

float* Decoder::State::run(const DecoderWeights& weights, float* out) {
  num_runs_ = find_runs(shape_, tokens_.data(), m_, runs_.data());
  embed_tokens(weights);
  for (int64_t i = 0; i < spec_.num_hidden_layers; ++i) {
    const LayerWeights& layer = weights.layers[static_cast<std::size_t>(i)];
    attention_step(layer, i);
    mlp_step(layer, i);
  }
  out = head_step(weights, out);
  m_ = 0;
  return out;
}

void Decoder::State::embed_tokens(const DecoderWeights& weights) {
  const int64_t half = spec_.head_dim / 2, h = spec_.hidden_size;
  parallel_for(ctx_.threads_for(m_ * (h * 4 + half * 128)), 0, m_, 8,
               [&](int64_t begin, int64_t end, int) {
                 for (int64_t t = begin; t < end; ++t) {
                   const auto i = static_cast<std::size_t>(t);
                   embed(ctx_, weights.embedding, weights.embedding_type, h, token_ids_[i],
                         x_.data() + t * h);
                   if (spec_.embedding_multiplier != 1.0f) {
                     for (int64_t j = t * h; j < (t + 1) * h; ++j)
                       x_[j] *= spec_.embedding_multiplier;
                   }
                   turn(weights.inv_freq, t, &turns_);
                   if (spec_.local_rope) turn(weights.local_inv_freq, t, &local_turns_);
                 }
               });
}

void Decoder::State::turn(const float* inv_freq, int64_t token, Turns* out) {
  const int64_t half = spec_.head_dim / 2;
  const auto pos = static_cast<float>(tokens_[static_cast<std::size_t>(token)].pos);
  float* angles = angles_.data() + token * half;
  for (int64_t j = 0; j < half; ++j) angles[j] = pos * inv_freq[j];
  float* sines = out->sin.data() + token * half;
  float* cosines = out->cos.data() + token * half;
  sin_cos(angles, half, sines, cosines);
  if (spec_.rope_factor == 1.0f) return;
  for (int64_t j = 0; j < half; ++j) {
    sines[j] *= spec_.rope_factor;
    cosines[j] *= spec_.rope_factor;
  }
}

Norm Decoder::State::rms(const float* weight) const {
  return weight ? Norm{NormKind::kRms, weight, spec_.rms_norm_eps} : Norm{};
}

// Rows of norm(x) (M, k) as the input of the linear layers that follow.
const QuantizedRows& Decoder::State::quantize(const float* x, int64_t k, const Norm& norm) {
  rows_.m = m_;
  rows_.k = k;
  rows_.stride = activation_bytes(k);
  ++rows_.version;
  norm_quantize(ctx_, x, norm, spec_.activation_levels, &rows_);
  return rows_;
}

// Linear layers of norm(x), x (M, k).
void Decoder::State::run_layers(const float* x, int64_t k, const Norm& norm,
                                const LinearOutput* outputs, int count) {
  if (grouped_) return grouped_->run(ctx_, x, m_, k, norm, outputs, count);
  linear(ctx_, quantize(x, k, norm), outputs, count);
}

// Linear layers of norm(x), x (M, k); norm may be null. Each layer may have a norm of its own as
// well, and then has activations of its own.
void Decoder::State::project(const float* x, int64_t k, const float* norm,
                             const LinearOutput* outputs, int count) {
  if (!has_projection_norms(spec_)) return run_layers(x, k, rms(norm), outputs, count);
  if (norm) {
    norm_rows(ctx_, x, m_, k, rms(norm), normed_.data());
    x = normed_.data();
  }
  for (int i = 0; i < count; ++i) {
    const Norm own{spec_.projection_norm, outputs[i].layer->norm, spec_.projection_norm_eps};
    run_layers(x, k, own, outputs + i, 1);
  }
}

// x_ += post_norm(layer of norm(x)), x (M, k); either norm may be null.
void Decoder::State::project_onto_residual(const float* x, int64_t k, const float* norm,
                                           const Linear& layer, const float* post_norm) {
  const int64_t h = spec_.hidden_size;
  float* to = post_norm ? added_.data() : x_.data();
  const LinearOutput out{&layer, to, h, post_norm == nullptr};
  project(x, k, norm, &out, 1);
  if (!post_norm) return;
  norm_rows(ctx_, to, m_, h, rms(post_norm), to);
  for (int64_t i = 0; i < m_ * h; ++i) x_[i] += to[i];
}

// x += post_norm(o_proj(sub_norm(attention(q_proj, k_proj, v_proj of norm(x)))))
void Decoder::State::attention_step(const LayerWeights& layer, int64_t index) {
  const int64_t h = spec_.hidden_size, d = spec_.head_dim, q_dim = spec_.q_dim(),
                kv_dim = spec_.kv_dim();
  const LinearOutput qkv[] = {{&layer.q, q_.data(), q_dim, false},
                              {&layer.k, k_.data(), kv_dim, false},
                              {&layer.v, v_.data(), kv_dim, false}};
  project(x_.data(), h, layer.attention_norm, qkv, 3);
  if (spec_.qk_norm) {
    norm_rows(ctx_, q_.data(), m_ * q_dim / d, d, rms(layer.q_norm), q_.data());
    norm_rows(ctx_, k_.data(), m_ * kv_dim / d, d, rms(layer.k_norm), k_.data());
  }
  const bool slides = spec_.slides(index);
  const Turns& turns = slides && spec_.local_rope ? local_turns_ : turns_;
  const AttentionCall call{ctx_,
                           shape_,
                           tokens_.data(),
                           index,
                           slides ? spec_.sliding_window : kNoWindow,
                           q_.data(),
                           q_factors_.data(),
                           attn_.data()};
  rotate_and_append(call, m_, turns.cos.data(), turns.sin.data(), k_.data(), v_.data());
  attend(call, runs_.data(), num_runs_, partials_.data());
  project_onto_residual(attn_.data(), q_dim, layer.attn_sub_norm, layer.o,
                        layer.attention_post_norm);
}

// mlp_ = act(gate_proj) · up_proj, both of norm(x)
void Decoder::State::feed_forward(const LayerWeights& layer, int64_t index) {
  const int64_t h = spec_.hidden_size, ffn = spec_.intermediate_size;
  if (has_whole_gate(spec_)) {
    const LinearOutput both[] = {{&layer.gate, gate_.data(), ffn, false},
                                 {&layer.up, mlp_.data(), ffn, false}};
    project(x_.data(), h, layer.ffn_norm, both, 2);
    return activate(ctx_, spec_.hidden_act, gate_.data(), m_, ffn, mlp_.data());
  }
  const QuantizedRows& in = quantize(x_.data(), h, rms(layer.ffn_norm));
  SparseFfn::Layer* sparse = sparse_ && m_ == 1 ? sparse_->layer(index) : nullptr;
  if (sparse && sparse->gate.skips(kGateBelow)) {
    sparse->gate.add(sparse_gated_linear(ctx_, &neurons_, in, layer.gate, layer.up,
                                         sparse->weights.up, mlp_.data()));
  } else {
    gated_linear(ctx_, in, layer.gate, layer.up, spec_.hidden_act, mlp_.data(), ffn);
  }
}

// x += post_norm(down_proj(sub_norm(act(gate_proj) * up_proj of norm(x))))
void Decoder::State::mlp_step(const LayerWeights& layer, int64_t index) {
  feed_forward(layer, index);
  const int64_t ffn = spec_.intermediate_size;
  SparseFfn::Layer* sparse = sparse_ && m_ == 1 ? sparse_->layer(index) : nullptr;
  if (sparse && sparse->down.skips(kDownBelow)) {
    const QuantizedRows& inner = quantize(mlp_.data(), ffn, rms(layer.ffn_sub_norm));
    sparse->down.add(
        sparse_down(ctx_, &neurons_, inner, layer.down, sparse->weights.down, x_.data()));
  } else {
    project_onto_residual(mlp_.data(), ffn, layer.ffn_sub_norm, layer.down, layer.ffn_post_norm);
  }
}

float* Decoder::State::head_step(const DecoderWeights& weights, float* out) {
  const int64_t h = spec_.hidden_size;
  int64_t rows = 0;
  float* normed = kind_ == RowKind::kHidden ? out : attn_.data();  // free by now
  for (int64_t t = 0; t < m_; ++t) {
    if (!wants_row_[static_cast<std::size_t>(t)]) continue;
    ctx_.kernels->f32.rms_norm(x_.data() + t * h, weights.norm, h, spec_.rms_norm_eps,
                               normed + rows++ * h);
  }
  if (rows == 0) return out;
  if (kind_ == RowKind::kHidden) return out + rows * h;
  const HeadScratch scratch{codes_.data(), sums_.data(), scales_.data(), plane_scratch_.get()};
  head_logits(ctx_, weights.head, scratch, normed, h, rows, top_, out);
  return out + rows * spec_.vocab_size;
}

}  // namespace bitinfer
