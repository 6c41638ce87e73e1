// How the row tiles of GEMVs are dealt to threads: each gets far-apart runs of tiles, which it
// walks in pieces as long as they come, since memory rests a little where one ends.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "ops/linear.h"
#include "ops/op_context.h"
#include "pack/format.h"
#include "threads/thread_pool.h"

namespace bitinfer {

constexpr int kMaxOutputs = 4;                    // layers of the same activations
constexpr int64_t kLeastTaskBytes = 32 * 1024;    // weights of a GEMV task
constexpr int64_t kCachedTaskBytes = 128 * 1024;  // the most of a task that goes over them again
constexpr int64_t kAnyTaskBytes = INT64_MAX;

// Runs of neighbouring tiles: run r starts at tile first[r].
struct TileRuns {
  int count;
  int64_t tiles;
  int64_t first[kMaxStreams];
};

// A matrix as `streams` regions of tiles that are walked side by side. Each thread has as many
// tiles of each, `own`; of the tiles behind the regions it has `small` tasks, of a tile a stream.
struct MatrixPlan {
  int64_t tiles;
  int streams;
  int64_t own;
  int64_t small;

  MatrixPlan() = default;
  MatrixPlan(const PackedTernary& w, int most_streams, int threads)
      : tiles(num_tiles(w.packing, w.n)),
        streams(static_cast<int>(std::min<int64_t>(most_streams, tiles))),
        own(tiles / streams / threads),
        small(ceil_div(ceil_div(tiles - streams * threads * own, streams), threads)) {}

  TileRuns own_runs(int64_t begin, int64_t count, int64_t thread, int64_t threads) const {
    TileRuns runs{streams, count, {}};
    for (int r = 0; r < streams; ++r) runs.first[r] = (r * threads + thread) * own + begin;
    return runs;
  }
  TileRuns small_runs(int64_t task, int64_t threads) const {
    const int64_t done = streams * threads * own, rest = tiles - done, tasks = threads * small;
    const int64_t begin = task * rest / tasks, end = (task + 1) * rest / tasks;
    TileRuns runs{static_cast<int>(end - begin), 1, {}};
    for (int r = 0; r < runs.count; ++r) runs.first[r] = done + begin + r;
    return runs;
  }
};

// The GEMVs of one job, as steps for parallel_for: a step is a tile of each region of a matrix, or
// a small task. A thread's steps follow each other, matrix by matrix, the small ones last.
class GemvPlan {
 public:
  explicit GemvPlan(int threads) : threads_(threads) {}

  // at_once: matrices like this one that a task walks beside it; most_bytes: of a task.
  void add(const PackedTernary& w, int most_streams, int at_once, int64_t most_bytes) {
    const MatrixPlan& plan = matrices_[count_++] = MatrixPlan(w, most_streams, threads_);
    of_thread_ += plan.own + plan.small;
    const int64_t width = at_once * plan.streams;
    const int64_t bytes = width * tile_bytes(w.packing, w.k);
    const int64_t room = acc_elements(1) / (width * layout(w.packing).tile_rows);
    chunks_.least = std::max(chunks_.least, ceil_div(kLeastTaskBytes, bytes));
    chunks_.most = std::min({chunks_.most, room, std::max<int64_t>(most_bytes / bytes, 1)});
  }

  // fn(matrix, runs, thread) for the runs of tiles of all tasks, on as many threads.
  template <typename Fn>
  void run(const Fn& fn) const {
    const Chunks chunks{std::min(chunks_.least, chunks_.most), chunks_.most};
    parallel_for(threads_, 0, threads_ * of_thread_, chunks,
                 [&](int64_t begin, int64_t end, int thread) {
                   while (begin < end)
                     begin += run_some(begin / of_thread_, begin % of_thread_, end - begin,
                                       [&](int i, const TileRuns& runs) { fn(i, runs, thread); });
                 });
  }

 private:
  // Of the steps of a thread from `at` on, as many as are of one matrix; returns how many.
  template <typename Fn>
  int64_t run_some(int64_t thread, int64_t at, int64_t most, const Fn& fn) const {
    for (int i = 0; i < count_; at -= matrices_[i++].own) {
      if (at >= matrices_[i].own) continue;
      const int64_t steps = std::min(most, matrices_[i].own - at);
      fn(i, matrices_[i].own_runs(at, steps, thread, threads_));
      return steps;
    }
    int i = 0;
    for (; at >= matrices_[i].small; ++i) at -= matrices_[i].small;
    const TileRuns runs = matrices_[i].small_runs(thread * matrices_[i].small + at, threads_);
    if (runs.count > 0) fn(i, runs);
    return 1;
  }

  const int threads_;
  int count_ = 0;
  MatrixPlan matrices_[kMaxOutputs];
  int64_t of_thread_ = 0;  // steps of each
  Chunks chunks_{1, INT64_MAX};
};

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

}  // namespace bitinfer
