// How the row tiles of a GEMV are dealt to threads: tasks of several far-apart runs of tiles, in an
// order that keeps a thread's tasks next to each other in memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "ops/linear.h"
#include "ops/op_context.h"
#include "pack/format.h"
#include "threads/dealt_task.h"

namespace bitinfer {

constexpr int kMaxOutputs = 4;  // layers of the same activations
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

inline GemvPlan plan_gemv(const OpContext& ctx, const PackedTernary& w, int most_streams) {
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

inline TileRuns runs_of(const GemvPlan& plan, int64_t task) {
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
inline void add_streams(TileStreams* streams, const PackedTernary& w, const TileRuns& runs,
                        int32_t* acc) {
  const int64_t rows = runs.tiles * layout(w.packing).tile_rows, bytes = tile_bytes(w.packing, w.k);
  streams->tiles_per_stream = runs.tiles;
  for (int r = 0; r < runs.count; ++r) {
    const int at = streams->num_streams++;
    streams->tiles[at] = w.data + runs.first[r] * bytes;
    streams->acc[at] = acc + at * rows;
  }
}

struct TaskPlace {
  int matrix;
  int64_t task;
};

// The task of all matrices that parallel_for runs at `index`.
inline TaskPlace place_of(const GemvPlan* plans, int count, int64_t threads, int64_t index) {
  int64_t counts[2 * kMaxOutputs];
  for (int i = 0; i < count; ++i) {
    counts[2 * i] = plans[i].full_tasks;
    counts[2 * i + 1] = plans[i].small_tasks;
  }
  const DealtTask at = dealt_task(counts, 2 * count, threads, index);
  const int matrix = at.kind / 2;
  return {matrix, at.index + (at.kind % 2) * plans[matrix].full_tasks};
}

}  // namespace bitinfer
