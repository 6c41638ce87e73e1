#include "ops/head.h"

#include <algorithm>

#include "ops/linear.h"
#include "ops/plane_head.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr int64_t kTaskBytes = 128 * 1024;
constexpr int64_t kBatchTaskBytes = 512 * 1024;  // of several states, which kernels rearrange first
constexpr int64_t kRowStep = 16;                 // rows that tasks consist of

// Steps of rows in so many bytes, of no more than `most` rows.
int64_t row_steps(int64_t bytes, int64_t row_bytes, int64_t most) {
  return std::max<int64_t>(std::min(bytes / row_bytes, most) / kRowStep, 1);
}

// fn(begin, end, thread) for all rows of the head.
template <typename Fn>
void for_rows(const OpContext& ctx, int64_t vocab, int64_t row_bytes, Chunks steps, const Fn& fn) {
  parallel_for(ctx.threads_for(vocab * row_bytes), 0, ceil_div(vocab, kRowStep), steps,
               [&](int64_t begin, int64_t end, int thread) {
                 fn(begin * kRowStep, std::min(end * kRowStep, vocab), thread);
               });
}

void quantize_states(const OpContext& ctx, const HeadScratch& s, const float* x, int64_t x_stride,
                     int64_t m, int64_t k, int64_t stride) {
  parallel_for(ctx.threads_for(m * k * 4), 0, m, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      int8_t* hi = s.codes + 2 * i * stride;
      s.scales[i] = ctx.kernels->f32.quantize_planes(x + i * x_stride, k, stride, hi, hi + stride,
                                                     s.sums + 2 * i);
    }
  });
}

void int8_logits(const OpContext& ctx, const Head& head, const HeadScratch& s, int64_t m,
                 float* logits) {
  const int64_t stride = round_up(head.hidden, 64);
  const int64_t room = acc_elements(m) / (2 * m);
  const Chunks one{row_steps(kTaskBytes, stride, room), room / kRowStep};
  const int64_t several = row_steps(kBatchTaskBytes, stride, room);
  for_rows(ctx, head.vocab, stride, m == 1 ? one : Chunks{several, several},
           [&](int64_t begin, int64_t end, int thread) {
             int32_t* acc = (*ctx.scratch)[static_cast<std::size_t>(thread)].acc.data();
             const int64_t n = end - begin;
             ctx.kernels->gemm_i8(head.codes + begin * stride, n, s.codes, stride, s.sums, 2 * m,
                                  stride, acc, n);
             for (int64_t i = 0; i < m; ++i) {
               const int32_t* hi = acc + 2 * i * n;
               ctx.kernels->f32.scale_head(hi, hi + n, n, s.scales[i], head.row_scale + begin,
                                           logits + i * head.vocab + begin);
             }
           });
}

void source_logits(const OpContext& ctx, const Head& head, const float* x, int64_t x_stride,
                   int64_t m, float* logits) {
  const int64_t row_bytes = head.hidden * float_bytes(head.type);
  const int64_t steps = row_steps(kTaskBytes, row_bytes, head.vocab);
  for_rows(ctx, head.vocab, row_bytes, {steps, m == 1 ? head.vocab : steps},
           [&](int64_t begin, int64_t end, int) {
             const void* w = static_cast<const uint8_t*>(head.rows) + begin * row_bytes;
             for (int64_t i = 0; i < m; ++i) {  // the rows stay in the cache for all M
               ctx.kernels->f32.dot_rows(w, head.type, end - begin, head.hidden, x + i * x_stride,
                                         logits + i * head.vocab + begin);
             }
           });
}

}  // namespace

void head_logits(const OpContext& ctx, const Head& head, const HeadScratch& scratch, const float* x,
                 int64_t x_stride, int64_t m, const TopTokens& top, float* logits) {
  const int64_t k = head.hidden;
  if (head.planes) {
    quantize_states(ctx, scratch, x, x_stride, m, k, plane_columns(k));
    return plane_logits(ctx, head, scratch, m, top, logits);
  }
  if (!head.codes) return source_logits(ctx, head, x, x_stride, m, logits);
  quantize_states(ctx, scratch, x, x_stride, m, k, round_up(k, 64));
  int8_logits(ctx, head, scratch, m, logits);
}

void embed(const OpContext& ctx, const void* rows, FloatType type, int64_t hidden, int64_t token,
           float* y) {
  const void* row = static_cast<const uint8_t*>(rows) + token * hidden * float_bytes(type);
  ctx.kernels->f32.widen(row, type, hidden, y);
}

}  // namespace bitinfer
