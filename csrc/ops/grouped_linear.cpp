#include "ops/grouped_linear.h"

#include <algorithm>

#include "ops/gemv_plan.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr int64_t kMaxAtOnce = 4;  // groups that gemv_groups sums
constexpr int64_t kGemvRows = 4;   // of activations: so many take a GEMV each
constexpr int64_t kFewRows = 16;   // of activations: so many groups of a part meet it in one GEMM

GroupedTernary stack_of(const GroupedShape& shape, const Linear& layer) {
  const PackedTernary& w = layer.w;
  return {w.packing, w.n, w.k, shape.groups.columns(w.k), w.data};
}

int64_t stack_bytes(const GroupedShape& shape, const Linear& layer) {
  return grouped_bytes(layer.w.packing, layer.w.n, layer.w.k, shape.groups.columns(layer.w.k));
}

// Whether one kernel call sums all groups of a part.
bool has_gemv_groups(const OpContext& ctx, const GroupedTernary& w) {
  return w.packing == Packing::kI2 && w.group % 64 == 0 && ctx.kernels->gemv_groups &&
         ctx.gemv.family == GemvFamily::kDot;
}

int64_t most_table_bytes(Packing packing) {
  int64_t most = 0;
  for (const std::string& isa : available_isas())
    most = std::max(most, table_of(isa).table_bytes[static_cast<int>(packing)]);
  return most;
}

// out.y[m][row, row + n) = y + bias, added to what is there where asked.
void finish(const LinearOutput& out, int64_t m, int64_t row, int64_t n, const float* y) {
  float* to = out.y + m * out.y_stride + row;
  const float* bias = out.layer->bias ? out.layer->bias + row : nullptr;
  for (int64_t i = 0; i < n; ++i) {
    const float v = bias ? y[i] + bias[i] : y[i];
    to[i] = out.accumulate ? to[i] + v : v;
  }
}

// y (n) += the sums of a group, hi and lo `plane_stride` apart, times the scales of rows from
// `row` on.
struct GroupEpilogue {
  const FloatKernels& f32;
  const Linear& layer;
  int planes;
  int64_t plane_stride;

  void operator()(int64_t group, int64_t row, int64_t n, const int32_t* acc, float act_scale,
                  float* y) const {
    const RowScales& scales = layer.row_scales;
    const int64_t at = (group * layer.w.n + row) * float_bytes(scales.type);
    f32.scale_rows_add(acc, planes == 2 ? acc + plane_stride : nullptr, n, act_scale,
                       static_cast<const uint8_t*>(scales.data) + at, scales.type, y);
  }
};

}  // namespace

GroupedLinears::GroupedLinears(const GroupedShape& shape, int num_threads, int64_t max_tokens,
                               int64_t max_k)
    : shape_(shape), quantizer_(shape, max_tokens, max_k) {
  const int64_t groups = num_groups(max_k, shape.groups.columns(max_k)), planes = shape.planes();
  const int64_t tables = groups * kGemvRows * num_blocks(shape.packing, widest_part(shape, max_k)) *
                         most_table_bytes(shape.packing);
  for (int i = 0; i < num_threads; ++i) {
    threads_.push_back(
        {AlignedBuffer<uint8_t>(static_cast<std::size_t>(tables)), 0,
         AlignedBuffer<int32_t>(static_cast<std::size_t>(
             planes * std::max(kMaxAtOnce * acc_elements(1), acc_elements(max_tokens)))),
         AlignedBuffer<float>(static_cast<std::size_t>(
             std::max(kGemvRows * acc_elements(1), acc_elements(max_tokens))))});
  }
}

void GroupedLinears::run(const OpContext& ctx, const float* x, int64_t m, int64_t k,
                         const Norm& norm, const LinearOutput* outputs, int count) {
  rows_ = quantizer_.run(ctx, x, m, k, norm);
  const bool few = m == 1 || m * shape_.planes() <= std::min(ctx.gemv.most_tokens, kGemvRows);
  few ? gemv(ctx, outputs, count) : gemm(ctx, outputs, count);
}

// ---- few rows ----

// Each part of the columns is a run of its own in memory: few and longer streams are faster. The
// results of a task are read again for each group, so they are to stay in the first cache.
void GroupedLinears::gemv(const OpContext& ctx, const LinearOutput* outputs, int count) {
  int64_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += stack_bytes(shape_, *outputs[i].layer);
  GemvPlan plan(ctx.threads_for(bytes));
  for (int i = 0; i < count; ++i) {
    const bool at_once = has_gemv_groups(ctx, stack_of(shape_, *outputs[i].layer));
    plan.add(outputs[i].layer->w, at_once ? 1 : std::max(ctx.gemv.streams / 2, 1), 1,
             kCachedTaskBytes);
  }
  plan.run([&](int i, const TileRuns& runs, int thread) {
    gemv_task(ctx, outputs[i], runs, &threads_[static_cast<std::size_t>(thread)]);
  });
}

void GroupedLinears::build_tables(const OpContext& ctx, Thread* thread) {
  const int packing = static_cast<int>(shape_.packing);
  const int64_t group = shape_.groups.columns(rows_.k);
  const int64_t blocks = num_blocks(shape_.packing, part_columns(shape_.packing, rows_.k, group));
  const int64_t rows = num_groups(rows_.k, group) * rows_.m * shape_.planes();
  for (int64_t i = 0; i < rows; ++i) {
    ctx.kernels->build_tables[packing](
        rows_.codes + i * rows_.stride, 0, blocks,
        thread->tables.data() + i * blocks * ctx.kernels->table_bytes[packing]);
  }
  thread->tables_version = rows_.version;
}

// Sums of groups [g, g + count) of a part with one plane of row m: acc (count, rows of all runs).
void GroupedLinears::gemv_sums(const OpContext& ctx, const PackedTernary& part,
                               const TileRuns& runs, int64_t g, int64_t count, int64_t m, int plane,
                               const uint8_t* tables, int32_t* acc) {
  const int64_t planes = shape_.planes(), i = (g * rows_.m + m) * planes + plane;
  const int8_t* codes = rows_.codes + i * rows_.stride;
  if (count > 1) {
    const GroupActivation a{codes, rows_.m * planes * rows_.stride, rows_.sums + i,
                            rows_.m * planes};
    for (int r = 0; r < runs.count; ++r) {
      ctx.kernels->gemv_groups(part.data + runs.first[r] * tile_bytes(part.packing, part.k),
                               runs.tiles, static_cast<int>(count), a, acc + r * runs.tiles,
                               runs.count * runs.tiles);
    }
    return;
  }
  const int64_t group = shape_.groups.columns(rows_.k);
  const int64_t columns = part_columns(part.packing, rows_.k, group);
  const int64_t table_bytes =
      num_blocks(part.packing, columns) * ctx.kernels->table_bytes[static_cast<int>(part.packing)];
  TileStreams streams{};
  add_streams(&streams, part, runs, acc);
  ctx.gemv.fn(streams, num_blocks(part.packing, part.k),
              {codes, rows_.sums[i], tables + i * table_bytes});
}

void GroupedLinears::gemv_task(const OpContext& ctx, const LinearOutput& out, const TileRuns& runs,
                               Thread* thread) {
  const Linear& layer = *out.layer;
  const GroupedTernary w = stack_of(shape_, layer);
  const int planes = shape_.planes();
  const int64_t in_part = groups_of_part(w.packing, w.group), groups = num_groups(w.k, w.group);
  const int64_t at_once = has_gemv_groups(ctx, w) ? in_part : 1;
  const int64_t tile_rows = layout(w.packing).tile_rows;
  const int64_t run_rows = runs.tiles * tile_rows, rows = runs.count * run_rows;
  if (ctx.gemv.needs_tables && thread->tables_version != rows_.version) build_tables(ctx, thread);
  // fn(first row in w, rows that exist, first row here) of each run
  const auto for_runs = [&](const auto& fn) {
    for (int r = 0; r < runs.count; ++r) {
      const int64_t row = runs.first[r] * tile_rows;
      fn(row, std::min(run_rows, w.n - row), r * run_rows);
    }
  };
  std::fill_n(thread->y.data(), rows_.m * rows, 0.0f);
  for (int64_t g = 0, here; g < groups; g += here) {
    here = g + at_once <= groups ? at_once : 1;
    int32_t* acc = thread->acc.data();
    const GroupEpilogue epilogue{ctx.kernels->f32, layer, planes, here * rows};
    for (int64_t m = 0; m < rows_.m; ++m) {
      for (int p = 0; p < planes; ++p)
        gemv_sums(ctx, part_of(w, g / in_part), runs, g, here, m, p, thread->tables.data(),
                  acc + p * here * rows);
      for (int64_t i = 0; i < here; ++i) {
        for_runs([&](int64_t row, int64_t n, int64_t at) {
          epilogue(g + i, row, n, acc + i * rows + at, rows_.scales[(g + i) * rows_.m + m],
                   thread->y.data() + m * rows + at);
        });
      }
    }
  }
  for (int64_t m = 0; m < rows_.m; ++m) {
    for_runs([&](int64_t row, int64_t n, int64_t at) {
      finish(out, m, row, n, thread->y.data() + m * rows + at);
    });
  }
}

// ---- more ----

void GroupedLinears::gemm(const OpContext& ctx, const LinearOutput* outputs, int count) {
  int64_t bytes = 0, panels = 0;
  for (int i = 0; i < count; ++i) {
    bytes += stack_bytes(shape_, *outputs[i].layer);
    panels += ceil_div(outputs[i].layer->w.n, kPanelRows);
  }
  parallel_for(
      ctx.threads_for(bytes * rows_.m), 0, panels, gemm_chunks(rows_.m * shape_.planes()),
      [&](int64_t begin, int64_t end, int thread) {
        const auto own = static_cast<std::size_t>(thread);
        for_panels(outputs, begin, end, [&](const LinearOutput& out, int64_t first, int64_t rows) {
          gemm_task(ctx, out, first, rows, &threads_[own], (*ctx.scratch)[own].gemm.data());
        });
      });
}

void GroupedLinears::gemm_task(const OpContext& ctx, const LinearOutput& out, int64_t first,
                               int64_t rows, Thread* thread, uint8_t* scratch) {
  const Linear& layer = *out.layer;
  const GroupedTernary w = stack_of(shape_, layer);
  const int planes = shape_.planes();
  const int64_t group_rows = rows_.m * planes, groups = num_groups(w.k, w.group);
  const int64_t in_part = groups_of_part(w.packing, w.group);
  const int64_t at_once = in_part * group_rows <= kFewRows ? in_part : 1;
  const int64_t tile_rows = layout(w.packing).tile_rows, first_tile = first / tile_rows;
  const int64_t tiles = std::min(rows / tile_rows, num_tiles(w.packing, w.n) - first_tile);
  const int64_t n = std::min(rows, w.n - first);
  const GroupEpilogue epilogue{ctx.kernels->f32, layer, planes, rows};
  int32_t* acc = thread->acc.data();
  std::fill_n(thread->y.data(), rows_.m * rows, 0.0f);
  for (int64_t g = 0; g < groups; g += at_once) {
    const PackedTernary part = part_of(w, g / in_part);
    const int64_t here = std::min(at_once, groups - g);
    ctx.kernels->gemm[static_cast<int>(w.packing)](
        part.data + first_tile * tile_bytes(part.packing, part.k), tiles,
        num_blocks(part.packing, part.k), rows_.codes + g * group_rows * rows_.stride, rows_.stride,
        rows_.sums + g * group_rows, here * group_rows, acc, rows, scratch);
    for (int64_t i = 0; i < here; ++i) {
      for (int64_t m = 0; m < rows_.m; ++m) {
        epilogue(g + i, first, n, acc + (i * group_rows + m * planes) * rows,
                 rows_.scales[(g + i) * rows_.m + m], thread->y.data() + m * rows);
      }
    }
  }
  for (int64_t m = 0; m < rows_.m; ++m) finish(out, m, first, n, thread->y.data() + m * rows);
}

}  // namespace bitinfer
