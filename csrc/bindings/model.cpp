// Python face of the decoder. Keeps the buffers of the weights alive; the GIL
// is released while a forward step runs.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bindings/register.h"
#include "dispatch/dispatch.h"
#include "model/decoder.h"
#include "util/check.h"

namespace py = pybind11;

namespace bitinfer {
namespace {

using F32 = py::array_t<float, py::array::c_style>;
using I32 = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

template <typename T>
T spec_value(const py::dict& spec, const char* key) {
  BITINFER_CHECK(spec.contains(key), "spec: missing key " << key);
  try {
    return spec[key].cast<T>();
  } catch (const py::cast_error&) {
    BITINFER_CHECK(
        false, "spec: " << key << ": unexpected value " << py::repr(spec[key]).cast<std::string>());
    throw;
  }
}

bool one_of(const std::string& value, const char* key, const char* yes, const char* no) {
  BITINFER_CHECK(value == yes || value == no,
                 "spec: " << key << ": expected " << yes << " or " << no << ", got " << value);
  return value == yes;
}

HiddenAct hidden_act(const std::string& name) {
  const auto* end = std::end(kHiddenActNames);
  const auto* at = std::find(std::begin(kHiddenActNames), end, name);
  BITINFER_CHECK(at != end,
                 "spec: hidden_act: expected relu2, silu or gelu_pytorch_tanh, got " << name);
  return static_cast<HiddenAct>(at - kHiddenActNames);
}

void parse_layer_types(const py::dict& d, DecoderSpec* s) {
  const auto types = spec_value<std::optional<std::vector<std::string>>>(d, "layer_types");
  if (!types) return;
  for (const std::string& type : *types)
    s->sliding.push_back(one_of(type, "layer_types", "sliding_attention", "full_attention"));
  s->sliding_window = spec_value<int64_t>(d, "sliding_window");
  s->local_rope = spec_value<std::optional<double>>(d, "rope_local_base_freq").has_value();
}

float rope_factor(const py::dict& d) {
  const auto scaling = spec_value<std::optional<py::dict>>(d, "rope_scaling");
  if (!scaling || !scaling->contains("attention_factor")) return 1.0f;
  return static_cast<float>(spec_value<double>(*scaling, "attention_factor"));
}

DecoderSpec parse_spec(const py::dict& d) {
  DecoderSpec s{};
  s.vocab_size = spec_value<int64_t>(d, "vocab_size");
  s.hidden_size = spec_value<int64_t>(d, "hidden_size");
  s.intermediate_size = spec_value<int64_t>(d, "intermediate_size");
  s.num_hidden_layers = spec_value<int64_t>(d, "num_hidden_layers");
  s.num_attention_heads = spec_value<int64_t>(d, "num_attention_heads");
  s.num_key_value_heads = spec_value<int64_t>(d, "num_key_value_heads");
  s.head_dim = spec_value<int64_t>(d, "head_dim");
  s.rms_norm_eps = static_cast<float>(spec_value<double>(d, "rms_norm_eps"));
  s.hidden_act = hidden_act(spec_value<std::string>(d, "hidden_act"));
  parse_layer_types(d, &s);
  s.rope_factor = rope_factor(d);
  s.attn_sub_norm = spec_value<bool>(d, "attn_sub_norm");
  s.ffn_sub_norm = spec_value<bool>(d, "ffn_sub_norm");
  s.qk_norm = spec_value<bool>(d, "qk_norm");
  s.post_norms = spec_value<bool>(d, "post_norms");
  const auto norm = spec_value<std::optional<std::string>>(d, "projection_norm");
  if (norm) {
    s.projection_norm = one_of(*norm, "projection_norm", "rms_norm", "layer_norm")
                            ? NormKind::kRms
                            : NormKind::kLayer;
    s.projection_norm_eps = static_cast<float>(spec_value<double>(d, "projection_norm_eps"));
  }
  s.embedding_multiplier = static_cast<float>(spec_value<double>(d, "embedding_multiplier"));
  s.activation_levels = spec_value<int>(d, "activation_levels");
  s.scale_groups = {spec_value<std::optional<int64_t>>(d, "scale_group_size").value_or(0),
                    spec_value<std::optional<int64_t>>(d, "scale_group_count").value_or(0)};
  s.activation_groups = spec_value<bool>(d, "activation_groups");
  s.attention_bias = spec_value<bool>(d, "attention_bias");
  s.tie_word_embeddings = spec_value<bool>(d, "tie_word_embeddings");
  const auto head = spec_value<std::string>(d, "head");
  for (int i = 0; i < kNumHeadSplits; ++i) {
    if (head == kHeadSplits[i].name) s.head_split = static_cast<HeadSplit>(i);
  }
  s.int8_head = s.head_split || one_of(head, "head", "int8", "source");
  return s;
}

LogitsRows logits_rows(const std::string& name) {
  if (name == "last") return LogitsRows::kLast;
  if (name == "all") return LogitsRows::kAll;
  BITINFER_CHECK(name == "none", "logits: expected last, all or none, got " << name);
  return LogitsRows::kNone;
}

int64_t num_rows(const Sequence& s) {
  return s.rows == LogitsRows::kAll ? s.num_tokens : s.rows == LogitsRows::kLast ? 1 : 0;
}

// The rows of every sequence, or of each: "none", "last", "all".
using RowsOf = std::variant<std::string, std::vector<std::string>>;

// A decoder with the Python objects whose bytes it reads.
class PyDecoder {
 public:
  PyDecoder(const py::dict& spec, const py::dict& weights, int num_threads)
      : decoder_(parse_spec(spec), tensors(weights), num_threads) {
    if (decoder_.weights().head.planes) buffers_.erase("lm_head.weight");  // not read again
  }

  Decoder& decoder() { return decoder_; }

  F32 forward(const std::vector<I32>& token_ids, const std::vector<py::object>& caches,
              const RowsOf& rows, const std::optional<F32>& out, int64_t top_k,
              int64_t vocab_size) {
    return run(token_ids, caches, rows, out, {top_k, vocab_size}, RowKind::kLogits);
  }
  F32 hidden(const std::vector<I32>& token_ids, const std::vector<py::object>& caches,
             const RowsOf& rows) {
    return run(token_ids, caches, rows, std::nullopt, {}, RowKind::kHidden);
  }
  void decode(int32_t token_id, KvCache& cache, F32& out, int64_t top_k, int64_t vocab_size);

 private:
  F32 run(const std::vector<I32>& token_ids, const std::vector<py::object>& caches,
          const RowsOf& rows_of, const std::optional<F32>& out, const TopTokens& top, RowKind kind);
  TensorMap tensors(const py::dict& weights) {
    TensorMap map;
    for (const auto& item : weights) {
      const auto name = item.first.cast<std::string>();
      const auto tensor = item.second.cast<py::tuple>();
      BITINFER_CHECK(tensor.size() == 3, name << ": expected (buffer, dtype, shape)");
      BITINFER_CHECK((py::isinstance<py::array_t<uint8_t, py::array::c_style>>(tensor[0])),
                     name << ": expected a contiguous uint8 buffer");
      const auto bytes = tensor[0].cast<py::array>();
      buffers_[name] = bytes;
      map[name] = {static_cast<const uint8_t*>(bytes.data()), bytes.nbytes(),
                   tensor[1].cast<std::string>(), tensor[2].cast<std::vector<int64_t>>()};
    }
    return map;
  }

  std::map<std::string, py::array> buffers_;
  Decoder decoder_;
};

// The vectors hold references: another thread may empty the caller's lists while the GIL is
// released.
F32 PyDecoder::run(const std::vector<I32>& token_ids, const std::vector<py::object>& caches,
                   const RowsOf& rows_of, const std::optional<F32>& out, const TopTokens& top,
                   RowKind kind) {
  BITINFER_CHECK(token_ids.size() == caches.size(), "caches: expected one for each of the "
                                                        << token_ids.size() << " sequences, got "
                                                        << caches.size());
  const auto* each = std::get_if<std::vector<std::string>>(&rows_of);
  BITINFER_CHECK(!each || each->size() == caches.size(), "logits: expected one for each of the "
                                                             << caches.size() << " sequences, got "
                                                             << each->size());
  std::vector<Sequence> batch;
  batch.reserve(caches.size());
  int64_t rows = 0;
  for (std::size_t i = 0; i < caches.size(); ++i) {
    BITINFER_CHECK(token_ids[i].ndim() == 1, "token_ids: expected one-dimensional arrays of int32");
    BITINFER_CHECK(py::isinstance<KvCache>(caches[i]),
                   "caches: expected KvCache, got " << py::repr(caches[i]).cast<std::string>());
    batch.push_back({token_ids[i].data(), token_ids[i].size(), caches[i].cast<KvCache*>(),
                     logits_rows(each ? (*each)[i] : std::get<std::string>(rows_of))});
    rows += num_rows(batch.back());
  }
  const int64_t width = decoder_.row_elements(kind);
  F32 result = out ? *out : F32({rows, width});
  BITINFER_CHECK(result.ndim() == 2 && result.shape(0) == rows && result.shape(1) == width,
                 "out: expected float32 (" << rows << ", " << width << ")");
  float* to = result.mutable_data();
  {
    py::gil_scoped_release release;
    decoder_.forward(batch, to, top, kind);
  }
  return result;
}

void PyDecoder::decode(int32_t token_id, KvCache& cache, F32& out, int64_t top_k,
                       int64_t vocab_size) {
  BITINFER_CHECK(out.ndim() == 1 && out.shape(0) == decoder_.spec().vocab_size,
                 "out: expected float32 (" << decoder_.spec().vocab_size << ")");
  float* to = out.mutable_data();
  py::gil_scoped_release release;
  decoder_.forward({{&token_id, 1, &cache}}, to, {top_k, vocab_size});
}

py::list ffn_density(const Decoder& decoder) {
  py::list layers;
  for (const FfnDensity& d : decoder.ffn_density()) layers.append(py::make_tuple(d.gate, d.down));
  return layers;
}

py::dict bytes_per_token(const Decoder& decoder, const std::string& kv_dtype) {
  const DecoderWeights& w = decoder.weights();
  const KvLayout layout = decoder.kv_layout(kv_type(kv_dtype));
  return py::dict(py::arg("ternary") = decoder.ternary_bytes(),
                  py::arg("head") = decoder.head_bytes(), py::arg("float") = w.float_bytes,
                  py::arg("kv_per_position") = layout.block_bytes() / kKvBlock);
}

}  // namespace

void register_model(py::module_& m) {
  py::class_<PyDecoder>(m, "Decoder", "A model: forward(ragged batch of tokens, caches) -> logits.")
      .def(py::init<const py::dict&, const py::dict&, int>(), py::arg("spec"), py::arg("weights"),
           py::arg("num_threads"))
      .def("forward", &PyDecoder::forward, py::arg("token_ids"), py::arg("caches"),
           py::arg("logits") = "last", py::arg("out").noconvert() = py::none(),
           py::arg("top_k") = 0, py::arg("vocab_size") = 0,
           "Append each sequence's tokens to its cache; float32 logits (rows, vocab_size) of the "
           "last token of each sequence, of all tokens, or none; `logits` may also say so of each "
           "sequence. With top_k, ids that are surely not among the top_k "
           "largest of ids below vocab_size (0: all) may get -inf. On error the caches are as "
           "before.")
      .def("hidden", &PyDecoder::hidden, py::arg("token_ids"), py::arg("caches"),
           py::arg("rows") = "all",
           "forward that returns, in place of logits, the normed hidden states that the head would "
           "multiply: float32 (rows, hidden_size).")
      .def("decode", &PyDecoder::decode, py::arg("token_id"), py::arg("cache"),
           py::arg("out").noconvert(), py::arg("top_k") = 0, py::arg("vocab_size") = 0,
           "forward of one token of one sequence, logits to out (vocab_size), without lists.")
      .def(
          "new_pool",
          [](PyDecoder& d, int64_t num_blocks, const std::string& dtype) {
            return d.decoder().new_pool(num_blocks, kv_type(dtype));
          },
          py::arg("num_blocks"), py::arg("dtype") = "f16")
      .def(
          "new_cache",
          [](PyDecoder& d, int64_t capacity, const std::string& dtype) {
            return d.decoder().new_cache(capacity, kv_type(dtype));
          },
          py::arg("capacity"), py::arg("dtype") = "f16")
      .def_property(
          "num_threads", [](PyDecoder& d) { return d.decoder().num_threads(); },
          [](PyDecoder& d, int n) {
            py::gil_scoped_release release;
            d.decoder().set_num_threads(n);
          })
      .def_property(
          "prefill_chunk", [](PyDecoder& d) { return d.decoder().prefill_chunk(); },
          [](PyDecoder& d, int64_t n) {
            py::gil_scoped_release release;
            d.decoder().set_prefill_chunk(n);
          })
      .def_property_readonly("gemv_family",
                             [](PyDecoder& d) { return family_name(d.decoder().gemv_family()); })
      .def(
          "prefer_gemv",
          [](PyDecoder& d, const std::string& family) {
            d.decoder().prefer_gemv(family == "auto" ? std::nullopt
                                                     : std::optional(family_from_name(family)));
          },
          py::arg("family"),
          "Use \"addsub\" or \"dot\" unless BITINFER_GEMV says another; \"auto\": what is faster "
          "by records.")
      .def_property(
          "sparse_ffn", [](PyDecoder& d) { return d.decoder().sparse_ffn(); },
          [](PyDecoder& d, bool on) {
            py::gil_scoped_release release;
            d.decoder().set_sparse_ffn(on);
          },
          "Skip idle neurons of a squared-ReLU FFN while decoding; can be set.")
      .def(
          "ffn_density", [](PyDecoder& d) { return ffn_density(d.decoder()); },
          "(share of neurons with a positive gate, share of columns of down_proj in use) of each "
          "layer, over the last decoded tokens; empty where sparse_ffn is off.")
      .def(
          "head_candidates", [](PyDecoder& d) { return d.decoder().head_candidates(); },
          "Rows of a two-plane head of which the last call that made logits read both planes, for "
          "all its rows of logits together.")
      .def(
          "bytes_per_token",
          [](PyDecoder& d, const std::string& kv_dtype) {
            return bytes_per_token(d.decoder(), kv_dtype);
          },
          py::arg("kv_dtype") = "f16",
          "Bytes read per decoded token: ternary, head (of a two-plane head: by the last call that "
          "made logits), float, and kv_per_position of a cache of kv_dtype.");
}

}  // namespace bitinfer
