#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "dispatch/dispatch.h"
#include "pack/grouped.h"
#include "util/check.h"

namespace bitinfer {
namespace {

std::string to_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

bool is_float(const std::string& dtype) {
  return dtype == "f32" || dtype == "f16" || dtype == "bf16";
}

FloatType float_type(const std::string& dtype) {
  return dtype == "f32" ? FloatType::kF32 : dtype == "f16" ? FloatType::kF16 : FloatType::kBF16;
}

// Hands out the tensors of a map by name and remembers which were asked for.
class Loader {
 public:
  Loader(const TensorMap& tensors, DecoderWeights* out) : tensors_(tensors), out_(out) {}

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }

  const Tensor& get(const std::string& name, const std::string& dtype,
                    const std::vector<int64_t>& shape) {
    const auto found = tensors_.find(name);
    BITINFER_CHECK(found != tensors_.end(),
                   name << ": missing, expected " << dtype << " " << to_text(shape));
    used_.insert(name);
    const Tensor& t = found->second;
    const bool fits = dtype == "float"     ? is_float(t.dtype)
                      : dtype == "ternary" ? is_packed(t.dtype)
                                           : t.dtype == dtype;
    BITINFER_CHECK(fits && t.shape == shape, name << ": expected " << dtype << " " << to_text(shape)
                                                  << ", got " << t.dtype << " "
                                                  << to_text(t.shape));
    if (dtype != "ternary") check_bytes(name, t, elements(shape) * element_bytes(t.dtype));
    return t;
  }

  // An fp32 copy of a float tensor of n finite numbers.
  const float* floats(const std::string& name, int64_t n) {
    const Tensor& t = get(name, "float", {n});
    out_->owned.emplace_back(static_cast<std::size_t>(n));
    float* copy = out_->owned.back().data();
    table_of("scalar").f32.widen(t.data, float_type(t.dtype), n, copy);
    for (int64_t i = 0; i < n; ++i)
      BITINFER_CHECK(std::isfinite(copy[i]),
                     name << ": expected finite numbers, got " << copy[i] << " at " << i);
    out_->float_bytes += n * 4;
    return copy;
  }

  // A view of the scales (groups, n); without groups, copies of the one that there is.
  RowScales row_scales(const std::string& name, int64_t groups, int64_t n,
                       const DecoderSpec& spec) {
    if (!spec.scale_groups.size && !spec.scale_groups.count) {
      const float one = *floats(name, 1);
      out_->owned.emplace_back(static_cast<std::size_t>(n));
      std::fill_n(out_->owned.back().data(), n, one);
      return {out_->owned.back().data(), FloatType::kF32};
    }
    const Tensor& t = get(name, "float", {groups, n});
    const FloatType type = float_type(t.dtype);
    AlignedBuffer<float> row(static_cast<std::size_t>(n));
    for (int64_t g = 0; g < groups; ++g) {
      table_of("scalar").f32.widen(t.data + g * n * float_bytes(type), type, n, row.data());
      const float* bad = std::find_if_not(row.data(), row.data() + n,
                                          [](float scale) { return std::isfinite(scale); });
      BITINFER_CHECK(bad == row.data() + n, name << ": expected finite numbers, got " << *bad
                                                 << " at " << bad - row.data() << " of group "
                                                 << g);
    }
    out_->float_bytes += t.bytes;
    return {t.data, type};
  }

  Linear linear(const std::string& name, int64_t n, int64_t k, const DecoderSpec& spec,
                bool bias_needed) {
    const std::string weight = name + ".weight";
    const Tensor& t = get(weight, "ternary", {n, k});
    const Packing packing = packing_of(t.dtype);
    if (out_->ternary_bytes == 0) out_->packing = packing;
    BITINFER_CHECK(packing == out_->packing,
                   weight << ": expected packing " << layout(out_->packing).name
                          << " as the tensors before it, got " << t.dtype);
    const int64_t group = spec.scale_groups.columns(k);
    BITINFER_CHECK(packing != Packing::kT3 || group == k,
                   weight << ": expected i2 or t5 for groups of " << group << " columns, got t3");
    const int64_t bytes = grouped_bytes(packing, n, k, group);
    check_bytes(weight, t, bytes);
    BITINFER_CHECK(reinterpret_cast<uintptr_t>(t.data) % kPackedAlign == 0,
                   weight << ": expected data at a multiple of " << kPackedAlign << " bytes");
    out_->ternary_bytes += bytes;
    const RowScales scales =
        spec.grouped() ? row_scales(weight + "_scale", num_groups(k, group), n, spec) : RowScales{};
    const float* scale = spec.grouped() ? nullptr : floats(weight + "_scale", 1);
    BITINFER_CHECK(!scale || *scale != 0.0f, weight << "_scale: expected a number other than 0");
    const bool bias = bias_needed || has(name + ".bias");
    const bool norm = spec.projection_norm == NormKind::kRms;
    return {{packing, n, k, t.data},
            scale ? *scale : 0.0f,
            bias ? floats(name + ".bias", n) : nullptr,
            norm ? floats(name + ".norm.weight", k) : nullptr,
            scales};
  }

  void check_all_used() const {
    for (const auto& [name, tensor] : tensors_) {
      BITINFER_CHECK(used_.count(name), name << ": not a tensor of this model, got " << tensor.dtype
                                             << " " << to_text(tensor.shape));
    }
  }

 private:
  static bool is_packed(const std::string& dtype) {
    for (const PackedLayout& l : kLayouts) {
      if (dtype == l.name) return true;
    }
    return false;
  }
  static Packing packing_of(const std::string& dtype) {
    int i = 0;
    while (dtype != kLayouts[i].name) ++i;
    return static_cast<Packing>(i);
  }
  static int64_t element_bytes(const std::string& dtype) {
    return dtype == "f32" ? 4 : is_float(dtype) ? 2 : 1;
  }
  static int64_t elements(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    return n;
  }
  static void check_bytes(const std::string& name, const Tensor& t, int64_t bytes) {
    BITINFER_CHECK(t.bytes == bytes, name << ": expected " << bytes << " bytes for " << t.dtype
                                          << " " << to_text(t.shape) << ", got " << t.bytes);
  }

  const TensorMap& tensors_;
  DecoderWeights* out_;
  std::set<std::string> used_;
};

LayerWeights load_layer(const DecoderSpec& spec, int64_t i, Loader* loader) {
  const std::string layer = "model.layers." + std::to_string(i) + ".";
  const std::string attn = layer + "self_attn.", mlp = layer + "mlp.";
  const int64_t h = spec.hidden_size, ffn = spec.intermediate_size, q = spec.q_dim(),
                kv = spec.kv_dim();
  LayerWeights w{};
  const auto norm = [&](const char* name) {
    return loader->floats(layer + name + "_layernorm.weight", h);
  };
  w.attention_norm = norm("input");
  w.ffn_norm = norm(spec.post_norms ? "pre_feedforward" : "post_attention");
  if (spec.post_norms) {
    w.attention_post_norm = norm("post_attention");
    w.ffn_post_norm = norm("post_feedforward");
  }
  if (spec.qk_norm) {
    w.q_norm = loader->floats(attn + "q_norm.weight", spec.head_dim);
    w.k_norm = loader->floats(attn + "k_norm.weight", spec.head_dim);
  }
  if (spec.attn_sub_norm) w.attn_sub_norm = loader->floats(attn + "attn_sub_norm.weight", q);
  if (spec.ffn_sub_norm) w.ffn_sub_norm = loader->floats(mlp + "ffn_sub_norm.weight", ffn);
  w.q = loader->linear(attn + "q_proj", q, h, spec, spec.attention_bias);
  w.k = loader->linear(attn + "k_proj", kv, h, spec, spec.attention_bias);
  w.v = loader->linear(attn + "v_proj", kv, h, spec, spec.attention_bias);
  w.o = loader->linear(attn + "o_proj", h, q, spec, false);
  w.gate = loader->linear(mlp + "gate_proj", ffn, h, spec, false);
  w.up = loader->linear(mlp + "up_proj", ffn, h, spec, false);
  w.down = loader->linear(mlp + "down_proj", h, ffn, spec, false);
  return w;
}

// Keeps an int8 head in two planes; its codes are not used again.
void split_planes(HeadSplit split, int num_threads, Head* head, DecoderWeights* w) {
  const int64_t v = head->vocab, h = head->hidden;
  BITINFER_CHECK(h <= kMaxPlaneColumns, "head: expected hidden_size up to "
                                            << kMaxPlaneColumns << " for " << layout(split).name
                                            << ", got " << h);
  for (int64_t i = 0; i < v; ++i) {
    BITINFER_CHECK(head->row_scale[i] >= 0.0f, "lm_head.weight_scale: expected 0 or more for head "
                                                   << layout(split).name << ", got "
                                                   << head->row_scale[i] << " at " << i);
  }
  const auto bytes = [v](int64_t row_bytes) { return static_cast<std::size_t>(v * row_bytes); };
  w->split_head.reset(new SplitHead{HugeMemory(bytes(high_row_bytes(split, h))),
                                    HugeMemory(bytes(low_row_bytes(split, h))),
                                    AlignedBuffer<int32_t>(bytes(1)),
                                    {}});
  SplitHead& s = *w->split_head;
  split_head(split, head->codes, v, h, s.high.data(), s.low.data(), s.residual.data(), num_threads);
  s.planes = {split, s.high.data(), s.low.data(), s.residual.data()};
  head->planes = &s.planes;
  head->codes = nullptr;
  w->head_bytes = v * (high_row_bytes(split, h) + 8);
}

Head load_head(const DecoderSpec& spec, int num_threads, Loader* loader, DecoderWeights* w) {
  const int64_t v = spec.vocab_size, h = spec.hidden_size;
  const std::string name = "lm_head.weight";
  Head head{nullptr, nullptr, nullptr, w->embedding, w->embedding_type, v, h};
  if (spec.int8_head) {
    head.codes =
        reinterpret_cast<const int8_t*>(loader->get(name, "i8", {v, round_up(h, 64)}).data);
    head.row_scale = loader->floats(name + "_scale", v);
    w->head_bytes = v * (round_up(h, 64) + 4);
    if (spec.head_split) split_planes(*spec.head_split, num_threads, &head, w);
    return head;
  }
  if (!spec.tie_word_embeddings) {
    const Tensor& t = loader->get(name, "float", {v, h});
    head.rows = t.data;
    head.type = float_type(t.dtype);
  }
  w->head_bytes = v * h * float_bytes(head.type);
  return head;
}

}  // namespace

DecoderWeights load_weights(const DecoderSpec& spec, const TensorMap& tensors, int num_threads) {
  DecoderWeights w{};
  Loader loader(tensors, &w);
  const Tensor& embedding =
      loader.get("model.embed_tokens.weight", "float", {spec.vocab_size, spec.hidden_size});
  w.embedding = embedding.data;
  w.embedding_type = float_type(embedding.dtype);
  w.inv_freq = loader.floats("rope.inv_freq", spec.head_dim / 2);
  if (spec.local_rope) w.local_inv_freq = loader.floats("rope.local_inv_freq", spec.head_dim / 2);
  w.norm = loader.floats("model.norm.weight", spec.hidden_size);
  for (int64_t i = 0; i < spec.num_hidden_layers; ++i)
    w.layers.push_back(load_layer(spec, i, &loader));
  w.head = load_head(spec, num_threads, &loader, &w);
  loader.check_all_used();
  if (spec.int8_head) w.float_bytes -= spec.vocab_size * 4;  // row scales: counted with the head
  w.float_bytes += spec.hidden_size * float_bytes(w.embedding_type);
  return w;
}

}  // namespace bitinfer
