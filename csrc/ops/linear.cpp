#include "ops/linear.h"

#include <algorithm>

#include "ops/gemv_plan.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

// Streams [at, at + runs.count) of a kernel call, with sums one after the other in acc.
void add_streams(TileStreams* streams, const PackedTernary& w, const TileRuns& runs, int32_t* acc) {
  const int64_t rows = runs.tiles * layout(w.packing).tile_rows, bytes = tile_bytes(w.packing, w.k);
  streams->tiles_per_stream = runs.tiles;
  for (int r = 0; r < runs.count; ++r) {
    const int at = streams->num_streams++;
    streams->tiles[at] = w.data + runs.first[r] * bytes;
    streams->acc[at] = acc + at * rows;
  }
}

// Rows of a run or panel that exist: the last tile may be padded.
int64_t valid_rows(const PackedTernary& w, int64_t first_row, int64_t rows) {
  return std::min(rows, w.n - first_row);
}

const float* bias_at(const Linear& layer, int64_t row) {
  return layer.bias ? layer.bias + row : nullptr;
}

void epilogue(const OpContext& ctx, const LinearOutput& out, const int32_t* acc, int64_t row,
              int64_t n, float act_scale, float* y) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const auto fn = out.accumulate ? f32.scale_add : f32.scale;
  fn(acc, n, act_scale, out.layer->weight_scale, bias_at(*out.layer, row), y + row);
}

// The row that a GEMV reads, with look-up tables where it needs them: each thread builds its own,
// as lines written by another core come slower than they are computed.
Activation activation(const OpContext& ctx, const QuantizedRows& a, ThreadScratch* scratch) {
  if (!ctx.gemv.needs_tables) return {a.codes, a.sums[0], nullptr};
  if (scratch->tables_version != a.version) {
    const int packing = static_cast<int>(ctx.packing);
    ctx.kernels->build_tables[packing](a.codes, 0, num_blocks(ctx.packing, a.k),
                                       scratch->tables.data());
    scratch->tables_version = a.version;
  }
  return {a.codes, a.sums[0], scratch->tables.data()};
}

void gemv_task(const OpContext& ctx, const QuantizedRows& a, const LinearOutput& out,
               const TileRuns& runs, int thread) {
  const PackedTernary& w = out.layer->w;
  ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
  TileStreams streams{};
  add_streams(&streams, w, runs, scratch.acc.data());
  ctx.gemv.fn(streams, num_blocks(w.packing, w.k), activation(ctx, a, &scratch));
  const int64_t rows = runs.tiles * layout(w.packing).tile_rows;
  for (int r = 0; r < runs.count; ++r) {
    const int64_t row = runs.first[r] * layout(w.packing).tile_rows;
    epilogue(ctx, out, streams.acc[r], row, valid_rows(w, row, rows), a.scales[0], out.y);
  }
}

int64_t weight_bytes(const PackedTernary& w) { return packed_bytes(w.packing, w.n, w.k); }

constexpr int kMaxOutputs = 4;

void gemv(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  GemvPlan plans[kMaxOutputs];
  int64_t tasks = 0, bytes = 0;
  for (int i = 0; i < count; ++i) {
    plans[i] = plan_gemv(ctx, outputs[i].layer->w, kStreams);
    tasks += plans[i].tasks();
    bytes += weight_bytes(outputs[i].layer->w);
  }
  const int threads = ctx.threads_for(bytes);
  parallel_for(threads, 0, tasks, 1, [&](int64_t index, int64_t, int thread) {
    const TaskPlace at = place_of(plans, count, threads, index);
    gemv_task(ctx, a, outputs[at.matrix], runs_of(plans[at.matrix], at.task), thread);
  });
}

void gated_gemv(const OpContext& ctx, const QuantizedRows& a, const Linear& gate, const Linear& up,
                HiddenAct act, float* y) {
  const GemvPlan plan = plan_gemv(ctx, gate.w, kStreams / 2);
  const int64_t tile_rows = layout(gate.w.packing).tile_rows;
  const FloatKernels& f32 = ctx.kernels->f32;
  const auto multiply = act == HiddenAct::kRelu2 ? f32.relu2_mul : f32.silu_mul;
  const int threads = ctx.threads_for(2 * weight_bytes(gate.w));
  parallel_for(threads, 0, plan.tasks(), 1, [&](int64_t index, int64_t, int thread) {
    ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
    const TileRuns runs = runs_of(plan, place_of(&plan, 1, threads, index).task);
    TileStreams streams{};
    add_streams(&streams, gate.w, runs, scratch.acc.data());
    add_streams(&streams, up.w, runs, scratch.acc.data());
    ctx.gemv.fn(streams, num_blocks(gate.w.packing, gate.w.k), activation(ctx, a, &scratch));
    float* g = scratch.row.data();
    float* u = g + runs.tiles * tile_rows;
    for (int r = 0; r < runs.count; ++r) {
      const int64_t row = runs.first[r] * tile_rows,
                    n = valid_rows(gate.w, row, runs.tiles * tile_rows);
      f32.scale(streams.acc[r], n, a.scales[0], gate.weight_scale, bias_at(gate, row), g);
      f32.scale(streams.acc[runs.count + r], n, a.scales[0], up.weight_scale, bias_at(up, row), u);
      multiply(g, u, n, y + row);
    }
  });
}

// Sums of panel p (kPanelRows rows from p · kPanelRows on) of all M rows into acc (M, kPanelRows);
// returns the rows that exist.
int64_t gemm_panel(const OpContext& ctx, const QuantizedRows& a, const PackedTernary& w, int64_t p,
                   int32_t* acc, uint8_t* scratch) {
  const int64_t panel_tiles = kPanelRows / layout(w.packing).tile_rows;
  const int64_t first = p * panel_tiles;
  const int64_t tiles = std::min(panel_tiles, num_tiles(w.packing, w.n) - first);
  ctx.kernels->gemm[static_cast<int>(w.packing)](w.data + first * tile_bytes(w.packing, w.k), tiles,
                                                 num_blocks(w.packing, w.k), a.codes, a.stride,
                                                 a.sums, a.m, acc, kPanelRows, scratch);
  return valid_rows(w, p * kPanelRows, kPanelRows);
}

void gemm(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  int64_t tasks = 0, bytes = 0;
  for (int i = 0; i < count; ++i) {
    tasks += ceil_div(outputs[i].layer->w.n, kPanelRows);
    bytes += weight_bytes(outputs[i].layer->w);
  }
  parallel_for(ctx.threads_for(bytes * a.m), 0, tasks, 1, [&](int64_t panel, int64_t, int thread) {
    ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
    const LinearOutput* out = outputs;
    for (int64_t panels; panel >= (panels = ceil_div(out->layer->w.n, kPanelRows)); ++out)
      panel -= panels;
    int32_t* acc = scratch.acc.data();
    const int64_t n = gemm_panel(ctx, a, out->layer->w, panel, acc, scratch.gemm.data());
    for (int64_t m = 0; m < a.m; ++m) {
      epilogue(ctx, *out, acc + m * kPanelRows, panel * kPanelRows, n, a.scales[m],
               out->y + m * out->y_stride);
    }
  });
}

void gated_gemm(const OpContext& ctx, const QuantizedRows& a, const Linear& gate, const Linear& up,
                HiddenAct act, float* y, int64_t y_stride) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const auto multiply = act == HiddenAct::kRelu2 ? f32.relu2_mul : f32.silu_mul;
  const int64_t panels = ceil_div(gate.w.n, kPanelRows);
  parallel_for(
      ctx.threads_for(2 * weight_bytes(gate.w) * a.m), 0, panels, 1,
      [&](int64_t p, int64_t, int thread) {
        ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
        int32_t* acc = scratch.acc.data();
        int32_t* acc_up = acc + a.m * kPanelRows;
        const int64_t n = gemm_panel(ctx, a, gate.w, p, acc, scratch.gemm.data());
        gemm_panel(ctx, a, up.w, p, acc_up, scratch.gemm.data());
        float g[kPanelRows], u[kPanelRows];
        const int64_t row = p * kPanelRows;
        for (int64_t m = 0; m < a.m; ++m) {
          f32.scale(acc + m * kPanelRows, n, a.scales[m], gate.weight_scale, bias_at(gate, row), g);
          f32.scale(acc_up + m * kPanelRows, n, a.scales[m], up.weight_scale, bias_at(up, row), u);
          multiply(g, u, n, y + m * y_stride + row);
        }
      });
}

}  // namespace

void linear(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  (a.m == 1 ? gemv : gemm)(ctx, a, outputs, count);
}

void gated_linear(const OpContext& ctx, const QuantizedRows& a, const Linear& gate,
                  const Linear& up, HiddenAct act, float* y, int64_t y_stride) {
  if (a.m == 1) return gated_gemv(ctx, a, gate, up, act, y);
  gated_gemm(ctx, a, gate, up, act, y, y_stride);
}

}  // namespace bitinfer
