// Activations of layers with groups of columns: normed, quantized, and laid out as the stack of
// matrices takes them (pack/grouped.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/norm.h"
#include "ops/op_context.h"
#include "pack/grouped.h"
#include "util/aligned_buffer.h"

namespace bitinfer {

constexpr int kTwoPlaneLevels = 16383;             // activation levels of 15 bits
constexpr int64_t kMostTwoPlaneColumns = 1 << 17;  // below it int32 holds the sums of 15 bits

// Which columns share a weight scale in each row: `size` neighbours, or those of each of `count`
// equal groups; all where both are 0.
struct ScaleGroups {
  int64_t size = 0;
  int64_t count = 0;

  int64_t columns(int64_t k) const {
    return size ? std::min(size, k) : count ? ceil_div(k, count) : k;
  }
};

// What the layers of a model have in common.
struct GroupedShape {
  Packing packing;
  ScaleGroups groups;
  int activation_levels;   // 127, 128 or kTwoPlaneLevels
  bool activation_groups;  // each group of activations is normed and quantized on its own

  int planes() const { return activation_levels == kTwoPlaneLevels ? 2 : 1; }
};

// M quantized rows of K activations, group by group: each row of codes is a part of the columns
// (pack/grouped.h), zero but for its group.
struct GroupedRows {
  int64_t m;
  int64_t k;
  int64_t stride;   // activation_bytes(part columns)
  int8_t* codes;    // (groups, M, planes, stride)
  int32_t* sums;    // (groups, M, planes)
  float* scales;    // (groups, M)
  int64_t version;  // grows with every change of the codes
};

// The widest part that any K up to max_k may have.
inline int64_t widest_part(const GroupedShape& shape, int64_t max_k) {
  return std::max(layout(shape.packing).block_k, shape.groups.columns(max_k));
}

// Makes such rows in buffers of its own, allocated at the beginning.
class GroupedQuantizer {
 public:
  // max_tokens, max_k: of any call.
  GroupedQuantizer(const GroupedShape& shape, int64_t max_tokens, int64_t max_k);

  // Of norm(x), x (m, k); the codes hold until the next call.
  const GroupedRows& run(const OpContext& ctx, const float* x, int64_t m, int64_t k,
                         const Norm& norm);

 private:
  void quantize(const OpContext& ctx, const float* x, int64_t m, const Norm& norm,
                ThreadScratch* scratch);
  void spread(const int8_t* codes, int64_t first, int64_t columns, int64_t m, int plane,
              float scale);

  const GroupedShape shape_;
  AlignedBuffer<int8_t> codes_;
  AlignedBuffer<int32_t> sums_;
  AlignedBuffer<float> scales_;
  GroupedRows rows_;
};

}  // namespace bitinfer
