#include "ops/norm.h"

#include "threads/thread_pool.h"

namespace bitinfer {

void norm_quantize(const OpContext& ctx, const float* x, int64_t x_stride, const float* w,
                   float eps, QuantizedRows* a) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const int64_t row_bytes = a->k * static_cast<int64_t>(sizeof(float));
  const int64_t grain = a->m == 1 ? 1 : 1 + 32 * 1024 / row_bytes;
  parallel_for(ctx.threads_for(a->m * row_bytes), 0, a->m, grain,
               [&](int64_t begin, int64_t end, int thread) {
                 float* normed = (*ctx.scratch)[static_cast<std::size_t>(thread)].row.data();
                 for (int64_t m = begin; m < end; ++m) {
                   const float* row = x + m * x_stride;
                   if (w) {
                     f32.rms_norm(row, w, a->k, eps, normed);
                     row = normed;
                   }
                   a->scales[m] =
                       f32.quantize_i8(row, a->k, a->stride, a->codes + m * a->stride, a->sums + m);
                 }
               });
}

}  // namespace bitinfer
