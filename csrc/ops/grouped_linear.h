// Ternary linear layers with a weight scale for each row and group of columns, or with activations
// of 15 bits; the weights are a stack of matrices (pack/grouped.h).
//
//   acc[g][n] = sum over the k of group g of w[n][k] · code[k], of 15 bits 128 · acc_hi + acc_lo
//   y[n] = (sum over g ascending, from +0, of (float(acc[g][n]) · act_scale) · weight_scale[g][n])
//          [+ bias[n]]
//
// Few rows run GEMV, more GEMM; same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/linear.h"
#include "ops/op_context.h"
#include "pack/grouped.h"

namespace bitinfer {

enum class ActivationBits : int { k8 = 1, k15 = 2 };  // the value: planes of int8

// M quantized rows of K activations, group by group: each row of codes is a part of the columns
// (pack/grouped.h), zero but for its group.
struct GroupedRows {
  int64_t m;
  int64_t k;
  int64_t stride;   // activation_bytes(part columns)
  int8_t* codes;    // (groups, M, planes, stride)
  int32_t* sums;    // (groups, M, planes)
  float* scales;    // (M)
  int64_t version;  // grows with every change of the codes
};

// What the layers of a model have in common.
struct GroupedShape {
  Packing packing;
  int64_t group_size;   // columns of a group, 0 where `group_count` says it
  int64_t group_count;  // groups of a matrix
  ActivationBits bits;

  int64_t group_of(int64_t k) const {
    return group_size ? std::min(group_size, k) : ceil_div(k, group_count);
  }
  int planes() const { return static_cast<int>(bits); }
};

// Runs grouped layers in buffers of its own, allocated at the beginning.
class GroupedLinears {
 public:
  // max_tokens, max_k: of any call.
  GroupedLinears(const GroupedShape& shape, int num_threads, int64_t max_tokens, int64_t max_k);

  // outputs[i].y (m, y_stride) = layer i of the rows of x (m, k), which go through an RMSNorm where
  // `norm` is not null. The layers are (N, k), their scales `row_scales`.
  void run(const OpContext& ctx, const float* x, int64_t m, int64_t k, const float* norm, float eps,
           const LinearOutput* outputs, int count);

 private:
  struct Thread {
    AlignedBuffer<uint8_t> tables;  // look-up tables of the rows of GroupedRows::version
    int64_t tables_version = 0;
    AlignedBuffer<int32_t> acc;  // sums of a task and group
    AlignedBuffer<float> y;      // results of a task
  };
  void quantize(const OpContext& ctx, const float* x, const float* norm, float eps);
  void spread(const int8_t* row, int64_t m, int plane);
  void gemv(const OpContext& ctx, const LinearOutput* outputs, int count);
  void gemv_task(const OpContext& ctx, const LinearOutput& out, const struct TileRuns& runs,
                 Thread* thread);
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
