#include "ops/grouped_rows.h"

#include <cstring>
#include <numeric>

#include "threads/thread_pool.h"

namespace bitinfer {

GroupedQuantizer::GroupedQuantizer(const GroupedShape& shape, int64_t max_tokens, int64_t max_k)
    : shape_(shape) {
  const int64_t groups = num_groups(max_k, shape.groups.columns(max_k));
  const auto rows = static_cast<std::size_t>(groups * max_tokens * shape.planes());
  const auto row_bytes = static_cast<std::size_t>(activation_bytes(widest_part(shape, max_k)));
  codes_ = AlignedBuffer<int8_t>(rows * row_bytes);
  sums_ = AlignedBuffer<int32_t>(rows);
  scales_ = AlignedBuffer<float>(static_cast<std::size_t>(groups * max_tokens));
  rows_ = {0, 0, 0, codes_.data(), sums_.data(), scales_.data(), 0};
}

const GroupedRows& GroupedQuantizer::run(const OpContext& ctx, const float* x, int64_t m, int64_t k,
                                         const Norm& norm) {
  rows_.m = m;
  rows_.k = k;
  rows_.stride = activation_bytes(part_columns(shape_.packing, k, shape_.groups.columns(k)));
  ++rows_.version;
  const int64_t row_bytes = k * static_cast<int64_t>(sizeof(float));
  const int64_t grain = m == 1 ? 1 : 1 + 32 * 1024 / row_bytes;
  parallel_for(ctx.threads_for(m * row_bytes), 0, m, grain,
               [&](int64_t begin, int64_t end, int thread) {
                 for (int64_t i = begin; i < end; ++i)
                   quantize(ctx, x, i, norm, &(*ctx.scratch)[static_cast<std::size_t>(thread)]);
               });
  return rows_;
}

// Row m of norm(x): whole, or each group of columns on its own.
void GroupedQuantizer::quantize(const OpContext& ctx, const float* x, int64_t m, const Norm& norm,
                                ThreadScratch* scratch) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const int64_t step = shape_.activation_groups ? shape_.groups.columns(rows_.k) : rows_.k;
  const int64_t stride = round_up(step, 64);
  auto* codes = reinterpret_cast<int8_t*>(scratch->gemm.data());
  for (int64_t first = 0; first < rows_.k; first += step) {
    const int64_t columns = std::min(step, rows_.k - first);
    const float* row = x + m * rows_.k + first;
    if (norm.kind != NormKind::kNone) {
      const float* weight = norm.weight ? norm.weight + first : nullptr;
      norm_row(f32, row, columns, {norm.kind, weight, norm.eps}, scratch->row.data());
      row = scratch->row.data();
    }
    const auto levels = static_cast<float>(shape_.activation_levels);
    int32_t sums[2];
    const float scale = shape_.planes() == 2
                            ? f32.quantize_planes(row, columns, stride, codes, codes + stride, sums)
                            : f32.quantize_i8(row, columns, stride, levels, codes, sums);
    for (int p = 0; p < shape_.planes(); ++p)
      spread(codes + p * stride, first, columns, m, p, scale);
  }
}

// The groups of columns [first, first + columns) of a row to rows of their own.
void GroupedQuantizer::spread(const int8_t* codes, int64_t first, int64_t columns, int64_t m,
                              int plane, float scale) {
  const int64_t group = shape_.groups.columns(rows_.k);
  const int64_t in_part = groups_of_part(shape_.packing, group);
  for (int64_t begin = 0; begin < columns; begin += group) {
    const int64_t g = (first + begin) / group, count = std::min(group, columns - begin);
    const int64_t at = (g * rows_.m + m) * shape_.planes() + plane;
    const int8_t* from = codes + begin;
    int8_t* to = rows_.codes + at * rows_.stride;
    std::memset(to, 0, static_cast<std::size_t>(rows_.stride));
    std::memcpy(to + g % in_part * group, from, static_cast<std::size_t>(count));
    rows_.sums[at] = std::accumulate(from, from + count, int32_t{0});
    rows_.scales[g * rows_.m + m] = scale;
  }
}

}  // namespace bitinfer
