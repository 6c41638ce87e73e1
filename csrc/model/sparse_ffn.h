// What a decoder needs to skip idle neurons: copies of up_proj and down_proj by neuron, and the
// shares of neurons that took part in the last tokens, by which a layer is run dense or sparse.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/spec.h"
#include "model/weights.h"
#include "ops/sparse_ffn.h"
#include "util/huge_memory.h"

namespace bitinfer {

struct FfnDensity {
  double gate;  // neurons whose gate is positive
  double down;  // activations of down_proj whose code is not 0
};

// Rows far apart are read slower than a matrix from end to end, and i2 is larger than t3 and t5:
// above these shares the dense matrices are faster (docs/ffn-sparsity.md).
constexpr double kGateBelow = 0.6;
constexpr double kDownBelow = 0.5;

// Moving average of the share of neurons that take part in one layer.
class NeuronShare {
 public:
  explicit NeuronShare(int64_t neurons) : neurons_(neurons) {}

  double average() const { return average_; }
  // Whether the next token is to be sparse. A dense layer is looked at again from time to time.
  bool skips(double below) { return average_ < below || ++dense_tokens_ % kLookAgain == 0; }
  void add(int64_t count) {
    const double share = static_cast<double>(count) / static_cast<double>(neurons_);
    average_ = known_ ? average_ + (share - average_) / 4 : share;
    known_ = true;
  }

 private:
  static constexpr int64_t kLookAgain = 64;
  int64_t neurons_;
  int64_t dense_tokens_ = 0;
  double average_ = 0.0;  // nothing known: look
  bool known_ = false;
};

class SparseFfn {
 public:
  struct Layer {
    NeuronWeights weights;
    NeuronShare gate, down;
  };

  // Throws std::invalid_argument where the activation is not squared ReLU. An up_proj that is i2
  // already is not copied: the bytes behind `weights` must outlive this.
  SparseFfn(const DecoderSpec& spec, const DecoderWeights& weights, int num_threads);

  Layer* layer(int64_t index) { return &layers_[static_cast<std::size_t>(index)]; }
  std::vector<FfnDensity> density() const;
  // Of a token's ternary bytes, at the present densities.
  int64_t bytes_saved(const DecoderWeights& weights) const;

 private:
  std::unique_ptr<HugeMemory> memory_;
  std::vector<Layer> layers_;
};

}  // namespace bitinfer
