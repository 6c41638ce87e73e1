// Ternary linear layers with a weight scale for each row and group of columns, or with activations
// of 15 bits; the weights are a stack of matrices (pack/grouped.h).
//
//   acc[g][n] = sum over the k of group g of w[n][k] · code[k], of 15 bits 128 · acc_hi + acc_lo
//   y[n] = (sum over g ascending, from +0, of (float(acc[g][n]) · act_scale) · weight_scale[g][n])
//          [+ bias[n]]
//
// Few rows run GEMV, more GEMM; same bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/op_context.h"
#include "pack/grouped.h"

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

// Runs grouped layers in buffers of its own, allocated at the beginning.
class GroupedLinears {
 public:
  // max_tokens, max_k: of any call.
  GroupedLinears(const GroupedShape& shape, int num_threads, int64_t max_tokens, int64_t max_k);

  // Layers (N, k) of norm(x), x (m, k); their scales are `row_scales`.
  void run(const OpContext& ctx, const float* x, int64_t m, int64_t k, const Norm& norm,
           const LinearOutput* outputs, int count);

 private:
  struct Thread {
    AlignedBuffer<uint8_t> tables;  // look-up tables of the rows of GroupedRows::version
    int64_t tables_version = 0;
    AlignedBuffer<int32_t> acc;  // sums of a task and group
    AlignedBuffer<float> y;      // results of a task
  };
  void quantize(const OpContext& ctx, const float* x, int64_t m, const Norm& norm,
                ThreadScratch* scratch);
  void spread(const int8_t* codes, int64_t first, int64_t columns, int64_t m, int plane,
              float scale);
  void gemv(const OpContext& ctx, const LinearOutput* outputs, int count);
  void gemv_task(const OpContext& ctx, const LinearOutput& out, const TileRuns& runs,
                 Thread* thread);
  void gemv_sums(const OpContext& ctx, const PackedTernary& part, const TileRuns& runs, int64_t g,
                 int64_t count, int64_t m, int plane, const uint8_t* tables, int32_t* acc);
  void build_tables(const OpContext& ctx, Thread* thread);
  void gemm(const OpContext& ctx, const LinearOutput* outputs, int count);
  void gemm_task(const OpContext& ctx, const LinearOutput& out, int64_t first, int64_t rows,
                 Thread* thread, uint8_t* scratch);

  const GroupedShape shape_;
  AlignedBuffer<int8_t> codes_;
  AlignedBuffer<int32_t> sums_;
  AlignedBuffer<float> scales_;
  GroupedRows rows_;
  std::vector<Thread> threads_;
};

}  // namespace bitinfer
