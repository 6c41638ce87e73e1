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

#include "ops/grouped_rows.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/op_context.h"

namespace bitinfer {

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
  GroupedQuantizer quantizer_;
  GroupedRows rows_{};  // of the call that runs
  std::vector<Thread> threads_;
};

}  // namespace bitinfer
