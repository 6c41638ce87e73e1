// The squared-ReLU FFN of one token without the weights that would be multiplied by zero: rows of
// `up` whose gate is not positive, columns of `down` whose activation has code 0. Both are left out
// of exact integer sums, and relu2_mul gives +0 whatever `up` is, so the bits are the dense ones.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/linear.h"
#include "ops/op_context.h"
#include "util/aligned_buffer.h"

namespace bitinfer {

// Copies of two matrices in which a neuron's weights lie side by side; data null where there are
// none.
struct NeuronWeights {
  PackedTernary up;    // i2 (intermediate, hidden): a row for each neuron
  PackedTernary down;  // i2 (intermediate, hidden): down_proj's columns as rows
};

struct NeuronScratch {  // of one thread
  NeuronScratch(int64_t neurons, int64_t hidden);

  AlignedBuffer<int32_t> chosen;  // (neurons): a list of them
  AlignedBuffer<int32_t> sums;    // (neurons)
  AlignedBuffer<float> up;        // (neurons)
  AlignedBuffer<float> bias;      // (neurons)
  AlignedBuffer<int32_t> kernel;  // (hidden, in whole K-blocks)
  AlignedBuffer<int32_t> acc;     // (hidden, in whole K-blocks): this thread's part of down_proj
  int64_t acc_version = 0;        // of the activations that acc belongs to
  int64_t count = 0;              // of neurons that took part
};

// As gated_linear with relu2, for one row of activations. Returns how many neurons have a positive
// gate.
int64_t sparse_gated_linear(const OpContext& ctx, std::vector<NeuronScratch>* scratch,
                            const QuantizedRows& a, const Linear& gate, const Linear& up,
                            const PackedTernary& up_rows, float* y);

// x += down(a), for one row of activations. Returns how many codes are not 0.
int64_t sparse_down(const OpContext& ctx, std::vector<NeuronScratch>* scratch,
                    const QuantizedRows& a, const Linear& down, const PackedTernary& columns,
                    float* x);

}  // namespace bitinfer
