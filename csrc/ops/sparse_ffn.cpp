#include "ops/sparse_ffn.h"

#include <algorithm>

#include "ops/gemv_plan.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr Packing kPacking = Packing::kI2;
constexpr int64_t kLeastDownColumns = 512;  // of a task, which sums apart before it adds them

int64_t padded_hidden(int64_t hidden) {
  return num_blocks(kPacking, hidden) * layout(kPacking).block_k;
}

template <typename T>
AlignedBuffer<T> buffer(int64_t count) {
  return AlignedBuffer<T>(static_cast<std::size_t>(count));
}

ChosenRows chosen_rows(const PackedTernary& w, const int32_t* rows, int64_t count) {
  return {w.data, num_blocks(kPacking, w.k), rows, count};
}

int64_t take_counts(std::vector<NeuronScratch>* scratch) {
  int64_t total = 0;
  for (NeuronScratch& s : *scratch) {
    total += s.count;
    s.count = 0;
  }
  return total;
}

// Gates of a run of rows from row `first` on: appends the rows of positive ones to s->chosen, and
// their gates to `gates`, which may be the same memory; y is 0 for all.
int64_t choose(const float* gate, int64_t first, int64_t n, int64_t count, float* gates,
               NeuronScratch* s, float* y) {
  std::fill_n(y + first, n, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    s->chosen[static_cast<std::size_t>(count)] = static_cast<int32_t>(first + i);
    gates[count] = gate[i];
    count += gate[i] > 0.0f;
  }
  return count;
}

// y of the `count` chosen neurons, whose gates these are.
void multiply_chosen(const OpContext& ctx, const QuantizedRows& a, const Linear& up,
                     const PackedTernary& up_rows, int64_t count, float* gates, NeuronScratch* s,
                     float* y) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const int32_t* rows = s->chosen.data();
  ctx.kernels->gemv_rows(chosen_rows(up_rows, rows, count), {a.codes, a.sums[0], nullptr},
                         s->sums.data());
  if (up.bias) {
    for (int64_t i = 0; i < count; ++i) s->bias.data()[i] = up.bias[rows[i]];
  }
  f32.scale(s->sums.data(), count, a.scales[0], up.weight_scale, up.bias ? s->bias.data() : nullptr,
            s->up.data());
  f32.relu2_mul(gates, s->up.data(), count, gates);
  for (int64_t i = 0; i < count; ++i) y[rows[i]] = gates[i];
}

}  // namespace

NeuronScratch::NeuronScratch(int64_t neurons, int64_t hidden)
    : chosen(buffer<int32_t>(neurons + 1)),
      sums(buffer<int32_t>(neurons)),
      up(buffer<float>(neurons)),
      bias(buffer<float>(neurons)),
      kernel(buffer<int32_t>(padded_hidden(hidden))),
      acc(buffer<int32_t>(padded_hidden(hidden))) {}

int64_t sparse_gated_linear(const OpContext& ctx, std::vector<NeuronScratch>* scratch,
                            const QuantizedRows& a, const Linear& gate, const Linear& up,
                            const PackedTernary& up_rows, float* y) {
  gemv_tasks(ctx, a, gate.w, [&](const TileRuns& runs, const TileStreams& streams, int thread) {
    NeuronScratch& s = (*scratch)[static_cast<std::size_t>(thread)];
    float* gates = (*ctx.scratch)[static_cast<std::size_t>(thread)].row.data();
    int64_t done = 0, count = 0;
    for (int r = 0; r < runs.count; ++r) {
      const int64_t row = runs.first[r] * layout(gate.w.packing).tile_rows;
      const int64_t n = std::min(runs.tiles * layout(gate.w.packing).tile_rows, gate.w.n - row);
      ctx.kernels->f32.scale(streams.acc[r], n, a.scales[0], gate.weight_scale,
                             gate.bias ? gate.bias + row : nullptr, gates + done);
      count = choose(gates + done, row, n, count, gates, &s, y);
      done += n;
    }
    if (count > 0) multiply_chosen(ctx, a, up, up_rows, count, gates, &s, y);
    s.count += count;
  });
  return take_counts(scratch);
}

int64_t sparse_down(const OpContext& ctx, std::vector<NeuronScratch>* scratch,
                    const QuantizedRows& a, const Linear& down, const PackedTernary& columns,
                    float* x) {
  const int threads = ctx.threads_for(packed_bytes(kPacking, columns.n, columns.k) / 4);
  const Chunks chunks{kLeastDownColumns, a.k};
  parallel_for(threads, 0, a.k, chunks, [&](int64_t begin, int64_t end, int thread) {
    NeuronScratch& s = (*scratch)[static_cast<std::size_t>(thread)];
    int64_t count = 0;
    for (int64_t k = begin; k < end; ++k) {
      s.chosen[static_cast<std::size_t>(count)] = static_cast<int32_t>(k);
      count += a.codes[k] != 0;
    }
    if (count == 0) return;
    if (s.acc_version != a.version) std::fill_n(s.acc.data(), s.acc.size(), 0);
    s.acc_version = a.version;
    s.count += count;
    ctx.kernels->gemv_columns(chosen_rows(columns, s.chosen.data(), count), a.codes,
                              s.kernel.data(), s.acc.data());
  });
  // Integer sums: the same in any order of threads.
  AlignedBuffer<int32_t>& total = scratch->front().kernel;
  std::fill_n(total.data(), total.size(), 0);
  for (const NeuronScratch& s : *scratch) {
    if (s.acc_version != a.version) continue;
    for (int64_t n = 0; n < down.w.n; ++n) total.data()[n] += s.acc.data()[n];
  }
  ctx.kernels->f32.scale_add(total.data(), down.w.n, a.scales[0], down.weight_scale, down.bias, x);
  return take_counts(scratch);
}

}  // namespace bitinfer
