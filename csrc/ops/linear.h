// Ternary linear layers: int8 activations in, fp32 out, the integer sums and the float epilogue in
// one task.
//
//   y[m][n] = (float(sum_k w[n][k] · codes[m][k]) · act_scale[m]) · weight_scale [+ bias[n]]
//
// M = 1 runs GEMV on several far-apart streams of tiles per thread, M >= 2 GEMM on panels of rows;
// same bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "ops/op_context.h"
#include "pack/format.h"
#include "threads/thread_pool.h"

namespace bitinfer {

// Weight scales (groups, N) of a layer of ops/grouped_linear.h; caller keeps.
struct RowScales {
  const void* data;  // null: the layer has one scale for all
  FloatType type;
};

struct Linear {
  PackedTernary w;  // (N, K), or the stack of pack/grouped.h; caller keeps the bytes
  float weight_scale;
  const float* bias;  // (N) or null; caller keeps
  const float* norm;  // gain (K) of the projection's own RMSNorm, or null; caller keeps
  RowScales row_scales = {};
};

// M quantized rows of K activations (ops/norm.h fills them).
struct QuantizedRows {
  int64_t m;
  int64_t k;
  int64_t stride;   // activation_bytes(k)
  int8_t* codes;    // (M, stride)
  int32_t* sums;    // (M)
  float* scales;    // (M)
  int64_t version;  // grows with every change of the codes
};

struct LinearOutput {
  const Linear* layer;
  float* y;  // (M, y_stride)
  int64_t y_stride;
  bool accumulate;  // y += result: the residual
};

enum class HiddenAct : int { kRelu2 = 0, kSilu = 1, kGeluTanh = 2 };
constexpr const char* kHiddenActNames[] = {"relu2", "silu", "gelu_pytorch_tanh"};

// Integer sums that one task may hold: all M rows of a panel, or the streams of a GEMV.
constexpr int64_t kPanelRows = 64;
constexpr int64_t acc_elements(int64_t max_m) { return 2 * kPanelRows * (max_m < 64 ? 64 : max_m); }

// `count` layers of the same activations (q, k, v), all of them one job for the threads.
void linear(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count);

// y (M, y_stride) = act(gate) · up, gate and up of equal shape; neither is ever stored as a whole.
void gated_linear(const OpContext& ctx, const QuantizedRows& a, const Linear& gate,
                  const Linear& up, HiddenAct act, float* y, int64_t y_stride);

// y (m, n) = act(gate) · y
void activate(const OpContext& ctx, HiddenAct act, const float* gate, int64_t m, int64_t n,
              float* y);

// How many panels of kPanelRows rows a GEMM task takes: of few tokens several, so that a kernel
// call is worth its beginning.
Chunks gemm_chunks(int64_t m);

// fn(output, first row, rows) for panels [begin, end) of the matrices one after the other; the last
// panel of each may have rows that it does not.
template <typename Fn>
void for_panels(const LinearOutput* outputs, int64_t begin, int64_t end, const Fn& fn) {
  for (; begin < end; ++outputs) {
    const int64_t panels = ceil_div(outputs->layer->w.n, kPanelRows), stop = std::min(end, panels);
    if (begin < stop) {
      fn(*outputs, begin * kPanelRows, (stop - begin) * kPanelRows);
      begin = stop;
    }
    begin -= panels;
    end -= panels;
  }
}

struct TileRuns;

// The sums of w on one row of activations, task by task: done(runs, streams, thread) takes those of
// the runs of tiles, streams.acc[r] of run r.
void gemv_tasks(
    const OpContext& ctx, const QuantizedRows& a, const PackedTernary& w,
    const std::function<void(const TileRuns& runs, const TileStreams& streams, int thread)>& done);

}  // namespace bitinfer
