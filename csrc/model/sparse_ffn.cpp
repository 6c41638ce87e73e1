#include "model/sparse_ffn.h"

#include <algorithm>

#include "pack/pack.h"
#include "util/check.h"

namespace bitinfer {
namespace {

constexpr Packing kPacking = Packing::kI2;
constexpr int64_t kMostNeurons = int64_t{1} << 21;  // of gemv_columns

// Bytes that a share of the rows of w has less than `dense`; 0 where dense is taken.
double saved(const PackedTernary& w, const PackedTernary& dense, const NeuronShare& share,
             double below) {
  if (share.average() >= below) return 0.0;
  const auto bytes = [](const PackedTernary& m) {
    return static_cast<double>(packed_bytes(m.packing, m.n, m.k));
  };
  return bytes(dense) - share.average() * bytes(w);
}

}  // namespace

SparseFfn::SparseFfn(const DecoderSpec& spec, const DecoderWeights& weights, int num_threads) {
  BITINFER_CHECK(spec.hidden_act == HiddenAct::kRelu2,
                 "ffn: expected a model with squared ReLU (hidden_act relu2) for sparse, got "
                     << kHiddenActNames[static_cast<int>(spec.hidden_act)]
                     << ", whose neurons are never idle: use dense");
  BITINFER_CHECK(spec.projection_norm == NormKind::kNone && !spec.post_norms,
                 "ffn: expected a model without norms of single projections and of the residual "
                 "for sparse: use dense");
  BITINFER_CHECK(
      !spec.grouped(),
      "ffn: expected a model with one weight scale a matrix and activations of 8 bits for "
      "sparse: use dense");
  const int64_t n = spec.intermediate_size, k = spec.hidden_size;
  BITINFER_CHECK(n < kMostNeurons, "ffn: expected intermediate_size below "
                                       << kMostNeurons << " for sparse, got " << n);
  const bool copies_up = weights.packing != kPacking;
  const int64_t bytes = packed_bytes(kPacking, n, k);
  const auto count = static_cast<int64_t>(weights.layers.size());
  memory_ = std::make_unique<HugeMemory>(static_cast<std::size_t>(count * bytes * (1 + copies_up)));
  uint8_t* to = memory_->data();
  for (const LayerWeights& layer : weights.layers) {
    NeuronWeights w{layer.up.w, {kPacking, n, k, to}};
    pack_transposed(layer.down.w, to, num_threads);
    to += bytes;
    if (copies_up) {
      w.up = {kPacking, n, k, to};
      repack(layer.up.w, kPacking, to, num_threads);
      to += bytes;
    }
    layers_.push_back({w, NeuronShare(n), NeuronShare(n)});
  }
}

std::vector<FfnDensity> SparseFfn::density() const {
  std::vector<FfnDensity> all;
  all.reserve(layers_.size());
  for (const Layer& layer : layers_) all.push_back({layer.gate.average(), layer.down.average()});
  return all;
}

int64_t SparseFfn::bytes_saved(const DecoderWeights& weights) const {
  double bytes = 0.0;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    bytes += saved(layer.weights.up, weights.layers[i].up.w, layer.gate, kGateBelow) +
             saved(layer.weights.down, weights.layers[i].down.w, layer.down, kDownBelow);
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace bitinfer
