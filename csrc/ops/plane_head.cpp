#include "ops/plane_head.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "ops/head_bounds.h"
#include "ops/linear.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int64_t kTaskBytes = 128 * 1024;
constexpr int64_t kGroupRows = 16;      // whose largest upper bound is kept
constexpr int64_t kPickedRows = 16;     // of an exact task
constexpr int64_t kMostShare = 2;       // more than this part of the rows in doubt: all are read
constexpr float kLargeScale = 0x1p80f;  // below it, no sum times act_scale overflows

// One call: M states and the rows of the head.
class PlaneHead {
 public:
  PlaneHead(const OpContext& ctx, const Head& head, const HeadScratch& states)
      : ctx_(ctx),
        head_(head),
        planes_(*head.planes),
        states_(states),
        scratch_(*states.planes),
        stride_(plane_columns(head.hidden)),
        high_bytes_(high_row_bytes(planes_.split, head.hidden)),
        low_bytes_(low_row_bytes(planes_.split, head.hidden)) {}

  void all(int64_t first, int64_t count, float* logits);
  void upper_bounds(int64_t m, int64_t limit, float* logits);
  void largest(int64_t token, const TopTokens& top, float* logits);

 private:
  int8_t* codes(int64_t token) const { return states_.codes + 2 * token * stride_; }
  int8_t* joined(int thread) const {
    return reinterpret_cast<int8_t*>((*ctx_.scratch)[static_cast<std::size_t>(thread)].gemm.data());
  }
  int32_t* acc(int thread) const {
    return (*ctx_.scratch)[static_cast<std::size_t>(thread)].acc.data();
  }
  float* group_max(int64_t token) const { return scratch_.group_max.data() + token * groups(); }
  int64_t groups() const { return ceil_div(head_.vocab, kGroupRows); }
  void join(int64_t row, int8_t* to) const {
    ctx_.kernels->head_join[static_cast<int>(planes_.split)](
        planes_.high + row * high_bytes_, planes_.low + row * low_bytes_, head_.hidden, to);
  }
  float kth_largest(const float* x, int64_t count, int64_t k) const;
  int64_t pick(int64_t token, float least, int64_t limit, const float* logits, int64_t count);
  void exact(int64_t token, int64_t first, int64_t end);

  const OpContext& ctx_;
  const Head& head_;
  const HeadPlanes& planes_;
  const HeadScratch& states_;
  PlaneScratch& scratch_;
  const int64_t stride_, high_bytes_, low_bytes_;
};

// Every logit of tokens first .. first + count - 1: rows are joined once for all of them.
void PlaneHead::all(int64_t first, int64_t count, float* logits) {
  const int64_t most = std::min(kGemmScratchBytes / stride_, acc_elements(count) / (2 * count));
  const int64_t rows = std::min(std::max<int64_t>(kTaskBytes / stride_ / 16 * 16, 16), most);
  parallel_for(ctx_.threads_for(head_.vocab * stride_), 0, head_.vocab, rows,
               [&](int64_t begin, int64_t end, int thread) {
                 const int64_t n = end - begin;
                 for (int64_t r = 0; r < n; ++r) join(begin + r, joined(thread) + r * stride_);
                 ctx_.kernels->gemm_i8(joined(thread), n, codes(first), stride_,
                                       states_.sums + 2 * first, 2 * count, stride_, acc(thread),
                                       n);
                 for (int64_t i = 0; i < count; ++i) {
                   const int32_t* hi = acc(thread) + 2 * i * n;
                   ctx_.kernels->f32.scale_head(hi, hi + n, n, states_.scales[first + i],
                                                head_.row_scale + begin,
                                                logits + (first + i) * head_.vocab + begin);
                 }
               });
  scratch_.candidates += count * head_.vocab;
  scratch_.bytes_read += head_.vocab * (high_bytes_ + low_bytes_ + 4);
}

float max_of(const float* x, int64_t count) {
  float most[8];
  if (count < 8) return *std::max_element(x, x + count);
  std::copy_n(x, 8, most);
  int64_t i = 8;
  for (; i + 8 <= count; i += 8) {
    for (int64_t j = 0; j < 8; ++j) most[j] = std::max(most[j], x[i + j]);
  }
  for (; i < count; ++i) most[0] = std::max(most[0], x[i]);
  return *std::max_element(most, most + 8);
}

// logits of rows below `limit` = the largest that the high plane and the bound allow.
void PlaneHead::upper_bounds(int64_t m, int64_t limit, float* logits) {
  HeadBound bounds[kMaxPlaneTokens];
  for (int64_t i = 0; i < m; ++i) {
    bounds[i] =
        bound_state(planes_.split, codes(i), codes(i) + stride_, states_.sums + 2 * i, head_.hidden,
                    scratch_.bounds.data() + i * 2 * (head_.hidden + 1), scratch_.order.data());
  }
  const auto high_sums = ctx_.kernels->head_high[static_cast<int>(planes_.split)];
  const int64_t least = std::max<int64_t>(kTaskBytes / high_bytes_ / kGroupRows, 1);
  parallel_for(
      ctx_.threads_for(limit * high_bytes_), 0, ceil_div(limit, kGroupRows),
      Chunks{least, m > 1 ? least : acc_elements(1) / 2 / kGroupRows},
      [&](int64_t first, int64_t last, int thread) {
        const int64_t begin = first * kGroupRows, n = std::min(last * kGroupRows, limit) - begin;
        int32_t *hi = acc(thread), *lo = hi + n;
        for (int64_t i = 0; i < m; ++i) {
          high_sums(planes_.high + begin * high_bytes_, n, head_.hidden, codes(i), stride_, hi);
          raise_sums(bounds[i], planes_.residual + begin, n, head_.hidden, hi, lo);
          float* to = logits + i * head_.vocab + begin;
          ctx_.kernels->f32.scale_head(hi, lo, n, states_.scales[i], head_.row_scale + begin, to);
          for (int64_t r = 0; r < n; r += kGroupRows)
            group_max(i)[(begin + r) / kGroupRows] = max_of(to + r, std::min(kGroupRows, n - r));
        }
      });
  scratch_.bytes_read += limit * (high_bytes_ + 8);
}

// Appends the rows whose logits are at least `least` to the first `count` of scratch.rows; returns
// how many there are then.
int64_t PlaneHead::pick(int64_t token, float least, int64_t limit, const float* logits,
                        int64_t count) {
  for (int64_t begin = 0; begin < limit; begin += kGroupRows) {
    if (group_max(token)[begin / kGroupRows] < least) continue;
    const int64_t end = std::min(begin + kGroupRows, limit);
    for (int64_t r = begin; r < end; ++r) {
      if (logits[r] >= least)
        scratch_.rows[static_cast<std::size_t>(count++)] = static_cast<int32_t>(r);
    }
  }
  return count;
}

// scratch.values[i] = logit of scratch.rows[i], i in [first, last).
void PlaneHead::exact(int64_t token, int64_t first, int64_t last) {
  parallel_for(ctx_.threads_for((last - first) * stride_), first, last, kPickedRows,
               [&](int64_t begin, int64_t end, int thread) {
                 const int64_t n = end - begin;
                 const int32_t* rows = scratch_.rows.data() + begin;
                 float scales[kPickedRows];
                 for (int64_t i = 0; i < n; ++i) {
                   join(rows[i], joined(thread) + i * stride_);
                   scales[i] = head_.row_scale[rows[i]];
                 }
                 ctx_.kernels->gemm_i8(joined(thread), n, codes(token), stride_,
                                       states_.sums + 2 * token, 2, stride_, acc(thread), n);
                 ctx_.kernels->f32.scale_head(acc(thread), acc(thread) + n, n,
                                              states_.scales[token], scales,
                                              scratch_.values.data() + begin);
               });
  scratch_.candidates += last - first;
  scratch_.bytes_read += (last - first) * (high_bytes_ + low_bytes_);
}

float PlaneHead::kth_largest(const float* x, int64_t count, int64_t k) const {
  if (k == 1) return max_of(x, count);
  float* sorted = scratch_.sorted.data();
  std::copy_n(x, count, sorted);
  std::nth_element(sorted, sorted + k - 1, sorted + count, std::greater<float>());
  return sorted[k - 1];
}

// From upper bounds to logits. A row of the k largest has a logit, so an upper bound, of at least
// the k-th largest logit; any k exact logits have a smallest one that is no larger. So it suffices
// to look at the rows whose bounds reach that, and the first k are best taken where the bounds are
// largest.
void PlaneHead::largest(int64_t token, const TopTokens& top, float* logits) {
  const int64_t limit = top.vocab_size, most = limit / kMostShare;
  const float start = kth_largest(group_max(token), ceil_div(limit, kGroupRows), top.k);
  const int64_t first = pick(token, start, limit, logits, 0);
  if (first > most) return all(token, 1, logits - token * head_.vocab);
  exact(token, 0, first);
  const float least = kth_largest(scratch_.values.data(), first, top.k);
  for (int64_t i = 0; i < first; ++i) logits[scratch_.rows[static_cast<std::size_t>(i)]] = kNothing;
  const int64_t count = pick(token, least, limit, logits, first);
  if (count > most) return all(token, 1, logits - token * head_.vocab);
  exact(token, first, count);
  std::fill_n(logits, head_.vocab, kNothing);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
    logits[scratch_.rows[i]] = scratch_.values[i];
}

}  // namespace

PlaneScratch::PlaneScratch(int64_t vocab, int64_t hidden)
    : bounds(static_cast<std::size_t>(kMaxPlaneTokens * 2 * (hidden + 1))),
      order(static_cast<std::size_t>(2 * hidden)),
      group_max(static_cast<std::size_t>(kMaxPlaneTokens * ceil_div(vocab, kGroupRows))),
      rows(static_cast<std::size_t>(vocab + ceil_div(vocab, kMostShare))),  // all after some
      values(static_cast<std::size_t>(ceil_div(vocab, kMostShare))),
      sorted(static_cast<std::size_t>(vocab)) {}

void plane_logits(const OpContext& ctx, const Head& head, const HeadScratch& states, int64_t m,
                  const TopTokens& top, float* logits) {
  PlaneHead planes(ctx, head, states);
  const int64_t limit = top.vocab_size ? top.vocab_size : head.vocab;
  const bool finite = std::all_of(states.scales, states.scales + m,
                                  [](float scale) { return scale < kLargeScale; });
  if (top.k == 0 || top.k > ceil_div(limit, kGroupRows) / 2 || m > kMaxPlaneTokens || !finite)
    return planes.all(0, m, logits);
  planes.upper_bounds(m, limit, logits);
  for (int64_t i = 0; i < m; ++i) planes.largest(i, {top.k, limit}, logits + i * head.vocab);
}

}  // namespace bitinfer
