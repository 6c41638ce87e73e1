#include "ops/norm.h"

#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

// fn(m, thread) for each row of k floats, shared among the threads.
template <typename Fn>
void for_rows(const OpContext& ctx, int64_t m, int64_t k, const Fn& fn) {
  const int64_t row_bytes = k * static_cast<int64_t>(sizeof(float));
  const int64_t grain = m == 1 ? 1 : 1 + 32 * 1024 / row_bytes;
  parallel_for(ctx.threads_for(m * row_bytes), 0, m, grain,
               [&](int64_t begin, int64_t end, int thread) {
                 for (int64_t i = begin; i < end; ++i) fn(i, thread);
               });
}

}  // namespace

void norm_row(const FloatKernels& f32, const float* x, int64_t k, const Norm& norm, float* y) {
  if (norm.kind == NormKind::kRms) return f32.rms_norm(x, norm.weight, k, norm.eps, y);
  f32.layer_norm(x, k, norm.eps, y);
}

void norm_rows(const OpContext& ctx, const float* x, int64_t m, int64_t k, const Norm& norm,
               float* y) {
  for_rows(ctx, m, k,
           [&](int64_t i, int) { norm_row(ctx.kernels->f32, x + i * k, k, norm, y + i * k); });
}

void norm_quantize(const OpContext& ctx, const float* x, const Norm& norm, int levels,
                   QuantizedRows* a) {
  const FloatKernels& f32 = ctx.kernels->f32;
  for_rows(ctx, a->m, a->k, [&](int64_t m, int thread) {
    const float* row = x + m * a->k;
    if (norm.kind != NormKind::kNone) {
      float* normed = (*ctx.scratch)[static_cast<std::size_t>(thread)].row.data();
      norm_row(f32, row, a->k, norm, normed);
      row = normed;
    }
    a->scales[m] = f32.quantize_i8(row, a->k, a->stride, static_cast<float>(levels),
                                   a->codes + m * a->stride, a->sums + m);
  });
}

}  // namespace bitinfer
