#include "ops/linear.h"

#include <algorithm>

#include "ops/gemv_plan.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

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

// Begins to read a task's first tiles while look-up tables are built: a line for each table, up to
// 4 KiB of each stream.
void read_ahead(const TileStreams& streams, int64_t num_tables) {
  const int64_t lines = std::min<int64_t>(num_tables / streams.num_streams, 64);
  for (int64_t i = 0; i < lines; ++i) {
    for (int s = 0; s < streams.num_streams; ++s)
      __builtin_prefetch(streams.tiles[s] + 64 * i, 0, 2);
  }
}

// Sums of every row of activations in turn: for few rows, tiles from the cache are read again
// sooner than a GEMM unpacks them. Look-up tables are each thread's own, as lines written by
// another core come slower than they are computed. done(m) takes the sums of row m.
template <typename Done>
void gemv_rows(const OpContext& ctx, const QuantizedRows& a, const TileStreams& streams,
               ThreadScratch* scratch, const Done& done) {
  const int packing = static_cast<int>(ctx.packing);
  const int64_t blocks = num_blocks(ctx.packing, a.k);
  const int64_t bytes = ctx.gemv.needs_tables ? blocks * ctx.kernels->table_bytes[packing] : 0;
  if (bytes && (scratch->tables_version != a.version || scratch->tables_codes != a.codes)) {
    read_ahead(streams, blocks);
    for (int64_t m = 0; m < a.m; ++m) {
      ctx.kernels->build_tables[packing](a.codes + m * a.stride, 0, blocks,
                                         scratch->tables.data() + m * bytes);
    }
    scratch->tables_version = a.version;
    scratch->tables_codes = a.codes;
  }
  for (int64_t m = 0; m < a.m; ++m) {
    ctx.gemv.fn(streams, blocks,
                {a.codes + m * a.stride, a.sums[m], scratch->tables.data() + m * bytes});
    done(m);
  }
}

void gemv_task(const OpContext& ctx, const QuantizedRows& a, const LinearOutput& out,
               const TileRuns& runs, int thread) {
  const PackedTernary& w = out.layer->w;
  ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
  TileStreams streams{};
  add_streams(&streams, w, runs, scratch.acc.data());
  const int64_t tile_rows = layout(w.packing).tile_rows;
  gemv_rows(ctx, a, streams, &scratch, [&](int64_t m) {
    for (int r = 0; r < runs.count; ++r) {
      const int64_t row = runs.first[r] * tile_rows;
      epilogue(ctx, out, streams.acc[r], row, valid_rows(w, row, runs.tiles * tile_rows),
               a.scales[m], out.y + m * out.y_stride);
    }
  });
}

auto multiply_by(const OpContext& ctx, HiddenAct act) {
  const FloatKernels& f32 = ctx.kernels->f32;
  if (act == HiddenAct::kRelu2) return f32.relu2_mul;
  return act == HiddenAct::kSilu ? f32.silu_mul : f32.gelu_mul;
}

int64_t weight_bytes(const PackedTernary& w) { return packed_bytes(w.packing, w.n, w.k); }

// Of a task, which reads its weights once for each row of activations.
int64_t most_task_bytes(const QuantizedRows& a) {
  return a.m == 1 ? kAnyTaskBytes : kCachedTaskBytes;
}

void gemv(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  int64_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += weight_bytes(outputs[i].layer->w);
  GemvPlan plan(ctx.threads_for(bytes));
  for (int i = 0; i < count; ++i)
    plan.add(outputs[i].layer->w, ctx.gemv.streams, 1, most_task_bytes(a));
  plan.run([&](int i, const TileRuns& runs, int thread) {
    gemv_task(ctx, a, outputs[i], runs, thread);
  });
}

void gated_gemv(const OpContext& ctx, const QuantizedRows& a, const Linear& gate, const Linear& up,
                HiddenAct act, float* y, int64_t y_stride) {
  const int64_t tile_rows = layout(gate.w.packing).tile_rows;
  const FloatKernels& f32 = ctx.kernels->f32;
  const auto multiply = multiply_by(ctx, act);
  GemvPlan plan(ctx.threads_for(2 * weight_bytes(gate.w)));
  plan.add(gate.w, std::max(ctx.gemv.streams / 2, 1), 2, most_task_bytes(a));
  plan.run([&](int, const TileRuns& runs, int thread) {
    ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
    TileStreams streams{};
    add_streams(&streams, gate.w, runs, scratch.acc.data());
    add_streams(&streams, up.w, runs, scratch.acc.data());
    float* g = scratch.row.data();
    float* u = g + runs.tiles * tile_rows;
    gemv_rows(ctx, a, streams, &scratch, [&](int64_t m) {
      for (int r = 0; r < runs.count; ++r) {
        const int64_t row = runs.first[r] * tile_rows;
        const int64_t n = valid_rows(gate.w, row, runs.tiles * tile_rows);
        const int32_t* acc_up = streams.acc[runs.count + r];
        f32.scale(streams.acc[r], n, a.scales[m], gate.weight_scale, bias_at(gate, row), g);
        f32.scale(acc_up, n, a.scales[m], up.weight_scale, bias_at(up, row), u);
        multiply(g, u, n, y + m * y_stride + row);
      }
    });
  });
}

// fn(rows, first) for as many rows of activations at a time as may have look-up tables.
template <typename Fn>
void for_each_slice(const QuantizedRows& a, const Fn& fn) {
  for (int64_t first = 0; first < a.m; first += kMaxGemvTokens) {
    fn({std::min(kMaxGemvTokens, a.m - first), a.k, a.stride, a.codes + first * a.stride,
        a.sums + first, a.scales + first, a.version},
       first);
  }
}

// Sums of rows [first, first + rows) of w with all M rows of a into acc (M, rows); returns the rows
// that exist.
int64_t gemm_rows(const OpContext& ctx, const QuantizedRows& a, const PackedTernary& w,
                  int64_t first, int64_t rows, int32_t* acc, uint8_t* scratch) {
  const int64_t tile_rows = layout(w.packing).tile_rows, first_tile = first / tile_rows;
  const int64_t tiles = std::min(rows / tile_rows, num_tiles(w.packing, w.n) - first_tile);
  ctx.kernels->gemm[static_cast<int>(w.packing)](w.data + first_tile * tile_bytes(w.packing, w.k),
                                                 tiles, num_blocks(w.packing, w.k), a.codes,
                                                 a.stride, a.sums, a.m, acc, rows, scratch);
  return valid_rows(w, first, rows);
}

void gemm(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  int64_t bytes = 0, panels = 0;
  for (int i = 0; i < count; ++i) {
    bytes += weight_bytes(outputs[i].layer->w);
    panels += ceil_div(outputs[i].layer->w.n, kPanelRows);
  }
  parallel_for(
      ctx.threads_for(bytes * a.m), 0, panels, gemm_chunks(a.m),
      [&](int64_t begin, int64_t end, int thread) {
        ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
        for_panels(outputs, begin, end, [&](const LinearOutput& out, int64_t first, int64_t rows) {
          int32_t* acc = scratch.acc.data();
          const int64_t n = gemm_rows(ctx, a, out.layer->w, first, rows, acc, scratch.gemm.data());
          for (int64_t m = 0; m < a.m; ++m) {
            epilogue(ctx, out, acc + m * rows, first, n, a.scales[m], out.y + m * out.y_stride);
          }
        });
      });
}

void gated_gemm(const OpContext& ctx, const QuantizedRows& a, const Linear& gate, const Linear& up,
                HiddenAct act, float* y, int64_t y_stride) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const auto multiply = multiply_by(ctx, act);
  const int threads = ctx.threads_for(2 * weight_bytes(gate.w) * a.m);
  parallel_for(
      threads, 0, ceil_div(gate.w.n, kPanelRows), gemm_chunks(a.m),
      [&](int64_t begin, int64_t end, int thread) {
        ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
        const int64_t first = begin * kPanelRows, rows = (end - begin) * kPanelRows;
        int32_t* acc = scratch.acc.data();
        int32_t* acc_up = acc + a.m * rows;
        const int64_t n = gemm_rows(ctx, a, gate.w, first, rows, acc, scratch.gemm.data());
        gemm_rows(ctx, a, up.w, first, rows, acc_up, scratch.gemm.data());
        float* g = scratch.row.data();
        float* u = g + rows;
        for (int64_t m = 0; m < a.m; ++m) {
          f32.scale(acc + m * rows, n, a.scales[m], gate.weight_scale, bias_at(gate, first), g);
          f32.scale(acc_up + m * rows, n, a.scales[m], up.weight_scale, bias_at(up, first), u);
          multiply(g, u, n, y + m * y_stride + first);
        }
      });
}

}  // namespace

Chunks gemm_chunks(int64_t m) { return {1, std::max<int64_t>(kPanelRows / m, 1)}; }

void gemv_tasks(
    const OpContext& ctx, const QuantizedRows& a, const PackedTernary& w,
    const std::function<void(const TileRuns& runs, const TileStreams& streams, int thread)>& done) {
  GemvPlan plan(ctx.threads_for(weight_bytes(w)));
  plan.add(w, ctx.gemv.streams, 1, most_task_bytes(a));
  plan.run([&](int, const TileRuns& runs, int thread) {
    ThreadScratch& scratch = (*ctx.scratch)[static_cast<std::size_t>(thread)];
    TileStreams streams{};
    add_streams(&streams, w, runs, scratch.acc.data());
    gemv_rows(ctx, a, streams, &scratch, [&](int64_t) { done(runs, streams, thread); });
  });
}

void linear(const OpContext& ctx, const QuantizedRows& a, const LinearOutput* outputs, int count) {
  if (a.m > ctx.gemv.most_tokens) return gemm(ctx, a, outputs, count);
  for_each_slice(a, [&](const QuantizedRows& rows, int64_t first) {
    LinearOutput of_rows[kMaxOutputs];
    std::copy_n(outputs, count, of_rows);
    for (int i = 0; i < count; ++i) of_rows[i].y += first * of_rows[i].y_stride;
    gemv(ctx, rows, of_rows, count);
  });
}

void activate(const OpContext& ctx, HiddenAct act, const float* gate, int64_t m, int64_t n,
              float* y) {
  const auto multiply = multiply_by(ctx, act);
  parallel_for(ctx.threads_for(8 * m * n), 0, m, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) multiply(gate + i * n, y + i * n, n, y + i * n);
  });
}

void gated_linear(const OpContext& ctx, const QuantizedRows& a, const Linear& gate,
                  const Linear& up, HiddenAct act, float* y, int64_t y_stride) {
  if (a.m > ctx.gemv.most_tokens) return gated_gemm(ctx, a, gate, up, act, y, y_stride);
  for_each_slice(a, [&](const QuantizedRows& rows, int64_t first) {
    gated_gemv(ctx, rows, gate, up, act, y + first * y_stride, y_stride);
  });
}

}  // namespace bitinfer
