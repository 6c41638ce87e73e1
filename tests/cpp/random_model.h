// Small decoders with random weights from an integer generator: the same bytes on every machine, no
// libm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder.h"
#include "pack/checkpoint.h"
#include "pack/pack.h"
#include "ternary_oracle.h"
#include "util/aligned_buffer.h"

namespace bitinfer_test {

// One way to set up the decoder, with the sizes that no block or lane count divides.
struct ModelVariant {
  const char* name;
  bitinfer::HiddenAct hidden_act;
  bool sub_norms;
  bool attention_bias;
  bool int8_head;
  const char* embedding_dtype;  // "f32", "f16", "bf16"; of the source head too, which is tied
  bitinfer::KvType kv_type;
  int64_t sliding_window = 0;  // of the first layer; 0: it sees all
};

class RandomModel {
 public:
  RandomModel(const ModelVariant& variant, bitinfer::Packing packing_of_all, bool is_binary)
      : packing(packing_of_all), binary(is_binary) {
    spec.vocab_size = 203;
    spec.hidden_size = 120;
    spec.intermediate_size = 301;
    spec.num_hidden_layers = 2;
    spec.num_attention_heads = 6;
    spec.num_key_value_heads = 2;
    spec.head_dim = 20;
    spec.rms_norm_eps = 1e-5f;
    spec.hidden_act = variant.hidden_act;
    if (variant.sliding_window) spec.sliding = {true, false};
    spec.sliding_window = variant.sliding_window;
    spec.attn_sub_norm = spec.ffn_sub_norm = variant.sub_norms;
    spec.attention_bias = variant.attention_bias;
    spec.tie_word_embeddings = true;
    spec.int8_head = variant.int8_head;
    add_floats("model.embed_tokens.weight", variant.embedding_dtype,
               {spec.vocab_size, spec.hidden_size}, 0.0f);
    if (spec.int8_head) add_int8_head();
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < spec.head_dim / 2; ++i)
      inv_freq.push_back(1.0f / static_cast<float>(1 << i));
    add("rope.inv_freq", "f32", {spec.head_dim / 2}, inv_freq.data(), 4 * spec.head_dim / 2);
    add_floats("model.norm.weight", "f32", {spec.hidden_size}, 1.0f);
    for (int64_t i = 0; i < spec.num_hidden_layers; ++i)
      add_layer("model.layers." + std::to_string(i) + ".");
  }

  const bitinfer::Packing packing;
  const bool binary;  // no weight is 0
  bitinfer::DecoderSpec spec{};
  bitinfer::TensorMap tensors;

 private:
  void add(const std::string& name, const char* dtype, const std::vector<int64_t>& shape,
           const void* data, int64_t bytes) {
    memory_.emplace_back(static_cast<std::size_t>(bytes));
    std::memcpy(memory_.back().data(), data, static_cast<std::size_t>(bytes));
    tensors[name] = {memory_.back().data(), bytes, dtype, shape};
  }

  // Multiples of 2^-7 in around + [-1, 1): exact in f32, f16 and bf16 alike where around is 0.
  void add_floats(const std::string& name, const std::string& dtype,
                  const std::vector<int64_t>& shape, float around) {
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    std::vector<float> wide;
    std::vector<uint16_t> narrow;
    for (int64_t i = 0; i < count; ++i) {
      const int n = random_.below(256) - 128;
      wide.push_back(around + static_cast<float>(n) * 0.0078125f);
      uint32_t bits = 0;
      std::memcpy(&bits, &wide.back(), 4);
      const uint32_t sign = bits >> 31 << 15;
      const uint32_t half =
          (bits & 0x7fffffffu) == 0 ? 0 : ((bits & 0x7fffffffu) >> 13) - (112u << 10);
      narrow.push_back(static_cast<uint16_t>(dtype == "bf16" ? bits >> 16 : sign | half));
    }
    if (dtype == "f32") {
      add(name, "f32", shape, wide.data(), 4 * count);
    } else {
      add(name, dtype.c_str(), shape, narrow.data(), 2 * count);
    }
  }

  void add_int8_head() {
    const int64_t k_padded = bitinfer::round_up(spec.hidden_size, 64);
    std::vector<float> rows;
    for (int64_t i = 0; i < spec.vocab_size * spec.hidden_size; ++i) {
      rows.push_back(static_cast<float>(random_.below(2001) - 1000) * 0.0009765625f);
    }
    std::vector<int8_t> codes(static_cast<std::size_t>(spec.vocab_size * k_padded));
    std::vector<float> scales(static_cast<std::size_t>(spec.vocab_size));
    const auto* bytes = reinterpret_cast<const uint8_t*>(rows.data());
    bitinfer::quantize_rows_i8(
        {bytes, bitinfer::FloatType::kF32, spec.vocab_size, spec.hidden_size}, codes.data(),
        scales.data(), 1);
    add("lm_head.weight", "i8", {spec.vocab_size, k_padded}, codes.data(),
        static_cast<int64_t>(codes.size()));
    add("lm_head.weight_scale", "f32", {spec.vocab_size}, scales.data(), 4 * spec.vocab_size);
  }

  void add_linear(const std::string& name, int64_t n, int64_t k, bool bias) {
    std::vector<int8_t> w(static_cast<std::size_t>(n * k));
    for (int8_t& weight : w) weight = random_weight(binary, &random_);
    std::vector<uint8_t> packed(static_cast<std::size_t>(bitinfer::packed_bytes(packing, n, k)));
    bitinfer::pack(w.data(), n, k, packing, packed.data(), 1);
    add(name + ".weight", bitinfer::layout(packing).name, {n, k}, packed.data(),
        static_cast<int64_t>(packed.size()));
    const float scale = static_cast<float>(1 + random_.below(64)) * 0.0009765625f;
    add(name + ".weight_scale", "f32", {1}, &scale, 4);
    if (bias) add_floats(name + ".bias", "f32", {n}, 0.0f);
  }

  void add_layer(const std::string& layer) {
    const int64_t h = spec.hidden_size, ffn = spec.intermediate_size;
    add_floats(layer + "input_layernorm.weight", "f32", {h}, 1.0f);
    add_floats(layer + "post_attention_layernorm.weight", "f32", {h}, 1.0f);
    if (spec.attn_sub_norm)
      add_floats(layer + "self_attn.attn_sub_norm.weight", "f32", {spec.q_dim()}, 1.0f);
    if (spec.ffn_sub_norm) add_floats(layer + "mlp.ffn_sub_norm.weight", "f32", {ffn}, 1.0f);
    add_linear(layer + "self_attn.q_proj", spec.q_dim(), h, spec.attention_bias);
    add_linear(layer + "self_attn.k_proj", spec.kv_dim(), h, spec.attention_bias);
    add_linear(layer + "self_attn.v_proj", spec.kv_dim(), h, spec.attention_bias);
    add_linear(layer + "self_attn.o_proj", h, spec.q_dim(), false);
    add_linear(layer + "mlp.gate_proj", ffn, h, false);
    add_linear(layer + "mlp.up_proj", ffn, h, false);
    add_linear(layer + "mlp.down_proj", h, ffn, false);
  }

  Random random_{42};
  std::deque<bitinfer::AlignedBuffer<uint8_t>> memory_;
};

}  // namespace bitinfer_test
