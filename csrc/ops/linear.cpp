#include "ops/linear.h"

#include <algorithm>

#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr int kStreams = 8;  // far-apart runs of tiles that a GEMV task walks (design: 4 to 8)
constexpr int64_t kTaskBytes =
    128 * 1024;  // weights of a GEMV task: short enough to balance the threads
constexpr int64_t kLeastTaskBytes = 16 * 1024;

// How the tiles of a matrix are dealt to GEMV tasks: `streams` regions of `region` tiles, of which
// each task takes the next `step`; the tiles behind them are dealt to smaller tasks at the end.
// Where a task is one tile of each region, tasks are so few that an uneven number would leave a
// thread idle: then the regions' tasks are a multiple of the threads, and so are the smaller ones.
struct GemvPlan {
  int64_t tiles;
  int streams;
  int64_t region;
  int64_t step;
  int64_t full_tasks;
  int64_t small_tasks;

  int64_t tasks() const { return full_tasks + small_tasks; }
};

GemvPlan plan_gemv(const OpContext& ctx, const PackedTernary& w, int most_streams) {
  GemvPlan plan;
  plan.tiles = num_tiles(w.packing, w.n);
  plan.streams = static_cast<int>(std::min<int64_t>(most_streams, plan.tiles));
  plan.region = plan.tiles / plan.streams;
  const int64_t threads = ctx.num_threads;
  const int64_t bytes = tile_bytes(w.packing, w.k);
  const int64_t share = plan.tiles * bytes / (8 * threads);
  const int64_t task = threads == 1 ? kTaskBytes : std::clamp(share, kLeastTaskBytes, kTaskBytes);
  const int64_t room = acc_elements(1) / kMaxStreams / layout(w.packing).tile_rows;
  plan.step = std::clamp<int64_t>(task / (plan.streams * bytes), 1, std::min(plan.region, room));
  if (plan.step == 1) plan.region -= plan.region % threads;
  plan.full_tasks = ceil_div(plan.region, plan.step);
  const int64_t rest = plan.tiles - plan.streams * plan.region;
  plan.small_tasks = std::min(rest, round_up(ceil_div(rest, plan.streams), threads));
  return plan;
}

// Runs of neighbouring tiles: run r starts at tile first[r].
struct TileRuns {
  int count;
  int64_t tiles;
  int64_t first[kMaxStreams];
};

TileRuns runs_of(const GemvPlan& plan, int64_t task) {
  TileRuns runs;
  if (task >= plan.full_tasks) {  // of the tiles at the end, each a run
    runs.tiles = 1;
    const int64_t done = plan.streams * plan.region, rest = plan.tiles - done;
    const int64_t i = task - plan.full_tasks;
    const int64_t begin = i * rest / plan.small_tasks, end = (i + 1) * rest / plan.small_tasks;
    runs.count = static_cast<int>(end - begin);
    for (int r = 0; r < runs.count; ++r) runs.first[r] = done + begin + r;
    return runs;
  }
  const int64_t begin = task * plan.step;
  runs.count = plan.streams;
  runs.tiles = std::min(plan.step, plan.region - begin);
  for (int r = 0; r < runs.count; ++r) runs.first[r] = r * plan.region + begin;
  return runs;
}

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

void gemv_task(const OpContext& ctx, const QuantizedRows& a, const LinearOutput& out,
               const TileRuns& runs, int thread) {
  const PackedTernary& w = out.layer->w;
  TileStreams streams{};
  add_streams(&streams, w, runs, (*ctx.scratch)[static_cast<std::size_t>(thread)].acc.data());
  ctx.gemv.fn(streams, num_blocks(w.packing, w.k), {a.codes, a.sums[0], a.tables});
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
  parallel_for(ctx.threads_for(bytes), 0, tasks, 1, [&](int64_t task, int64_t, int thread) {
    int i = 0;
    for (; task >= plans[i].tasks(); ++i) task -= plans[i].tasks();
    gemv_task(ctx, a, outputs[i], runs_of(plans[i], task), thread);
  });
}

void gated_gemv(const OpContext& ctx, const QuantizedRows& a, const Linear& gate, const Linear& up,
                HiddenAct act, float* y) {
  const GemvPlan plan = plan_gemv(ctx, gate.w, kStreams / 2);
  const int64_t tile_rows = layout(gate.w.packing).tile_rows;
  const FloatKernels& f32 = ctx.kernels->f32;
  const auto multiply = act == HiddenAct::kRelu2 ? f32.relu2_mul : f32.silu_mul;
  parallel_for(
      ctx.threads_for(2 * weight_bytes(gate.w)), 0, plan.tasks(), 1,
      [&](int64_t task, int64_t, int thread) {
        ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
        const TileRuns runs = runs_of(plan, task);
        TileStreams streams{};
        add_streams(&streams, gate.w, runs, scratch.acc.data());
        add_streams(&streams, up.w, runs, scratch.acc.data());
        ctx.gemv.fn(streams, num_blocks(gate.w.packing, gate.w.k), {a.codes, a.sums[0], a.tables});
        float* g = scratch.row.data();
        float* u = g + runs.tiles * tile_rows;
        for (int r = 0; r < runs.count; ++r) {
          const int64_t row = runs.first[r] * tile_rows,
                        n = valid_rows(gate.w, row, runs.tiles * tile_rows);
          f32.scale(streams.acc[r], n, a.scales[0], gate.weight_scale, bias_at(gate, row), g);
          f32.scale(streams.acc[runs.count + r], n, a.scales[0], up.weight_scale, bias_at(up, row),
                    u);
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

void build_tables(const OpContext& ctx, const QuantizedRows& a) {
  if (a.m != 1 || !ctx.gemv.needs_tables) return;
  const Packing packing = ctx.packing;
  const int64_t blocks = num_blocks(packing, a.k);
  const auto build = ctx.kernels->build_tables[static_cast<int>(packing)];
  const int64_t bytes = blocks * ctx.kernels->table_bytes[static_cast<int>(packing)];
  const int threads = ctx.threads_for(bytes);
  const int64_t grain = threads == 1 ? blocks : std::max<int64_t>(ceil_div(blocks, 4 * threads), 4);
  parallel_for(threads, 0, blocks, grain,
               [&](int64_t begin, int64_t end, int) { build(a.codes, begin, end, a.tables); });
}

void linear(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  (a.m == 1 ? gemv : gemm)(ctx, a, outputs, count);
}

void gated_linear(const OpContext& ctx, const QuantizedRows& a, const Linear& gate,
                  const Linear& up, HiddenAct act, float* y, int64_t y_stride) {
  if (a.m == 1) return gated_gemv(ctx, a, gate, up, act, y);
  gated_gemm(ctx, a, gate, up, act, y, y_stride);
}

}  // namespace bitinfer
