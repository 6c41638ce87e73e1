#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr int64_t kRunRows = 16;        // query rows (tokens x heads of a group) of a task
constexpr int64_t kPartialUnits = 256;  // (run, kv head, block) results that wait for their join

int64_t rows_of(const AttentionShape& shape, const TokenRun& run) {
  return run.count * shape.group();
}

int64_t most_rows(const AttentionShape& shape) { return std::max(kRunRows, shape.group()); }

// Floats of one unit: m and l of each row, then o (rows, padded_dim).
int64_t unit_elements(const AttentionShape& shape) {
  const int64_t rows = round_up(most_rows(shape), 16);
  return rows * (2 + shape.padded_dim());
}

SoftmaxState state_at(const AttentionShape& shape, float* at) {
  const int64_t rows = round_up(most_rows(shape), 16);
  return {at, at + rows, at + 2 * rows, shape.padded_dim()};
}

// Attention of one (run, kv head): gathers its query rows, then visits blocks.
class Task {
 public:
  // q_rows: most_rows x head_dim floats.
  Task(const OpContext& ctx, const AttentionShape& shape, const TokenPosition* tokens,
       const TokenRun& run, int64_t layer, int64_t kv_head, const float* q, float* q_rows)
      : ctx_(ctx),
        shape_(shape),
        tokens_(tokens + run.first),
        rows_(rows_of(shape, run)),
        layer_(layer),
        kv_head_(kv_head),
        q_(q_rows),
        last_(tokens_[run.count - 1].pos) {
    const int64_t row = shape.group() * shape.head_dim;
    for (int64_t t = 0; t < run.count; ++t) {
      const float* from =
          q + ((run.first + t) * shape.heads + kv_head * shape.group()) * shape.head_dim;
      std::memcpy(q_ + t * row, from, static_cast<std::size_t>(row) * sizeof(float));
    }
  }

  int64_t num_blocks() const { return last_ / kKvBlock + 1; }

  // First row that sees something of the block: positions ascend, so the rows behind it do too.
  int64_t first_row(int64_t block) const {
    int64_t row = 0;
    while (tokens_[row / shape_.group()].pos < block * kKvBlock) row += shape_.group();
    return row;
  }

  // Partial result of rows [first_row, rows) into out.
  void visit(int64_t block, const SoftmaxState& out) const {
    const TokenPosition& token = tokens_[0];
    int32_t counts[kMaxQueryRows];
    const int64_t first = first_row(block);
    for (int64_t r = first; r < rows_; ++r) {
      const int64_t seen = tokens_[r / shape_.group()].pos + 1 - block * kKvBlock;
      counts[r] = static_cast<int32_t>(std::min(seen, kKvBlock));
    }
    const SoftmaxState to{out.m + first, out.l + first, out.o + first * out.o_stride, out.o_stride};
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    ctx_.kernels->f32.attend_block[static_cast<int>(token.layout->type)](
        token.layout->at(token.blocks[block], layer_, kv_head_), shape_.head_dim,
        q_ + first * shape_.head_dim, shape_.head_dim, counts + first, rows_ - first, scale, to);
  }

  void join(int64_t block, const SoftmaxState& state, const SoftmaxState& part) const {
    for (int64_t r = first_row(block); r < rows_; ++r) {
      ctx_.kernels->f32.join_softmax(state.m + r, state.l + r, state.o + r * state.o_stride,
                                     part.m[r], part.l[r], part.o + r * part.o_stride,
                                     state.o_stride);
    }
  }

  void finish(const SoftmaxState& state, int64_t first_token, float* out) const {
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t head = kv_head_ * shape_.group() + r % shape_.group();
      float* y = out + ((first_token + r / shape_.group()) * shape_.heads + head) * shape_.head_dim;
      ctx_.kernels->f32.divide(state.o + r * state.o_stride, state.l[r], shape_.head_dim, y);
    }
  }

 private:
  const OpContext& ctx_;
  const AttentionShape& shape_;
  const TokenPosition* tokens_;
  int64_t rows_, layer_, kv_head_;
  float* q_;
  int64_t last_;
};

// Each (run, kv head) on one thread.
void attend_whole(const OpContext& ctx, const AttentionShape& shape, const TokenPosition* tokens,
                  const TokenRun* runs, int64_t num_runs, int64_t layer, const float* q, float* out,
                  int threads) {
  parallel_for(threads, 0, num_runs * shape.kv_heads, 1, [&](int64_t i, int64_t, int thread) {
    float* row = (*ctx.scratch)[static_cast<std::size_t>(thread)].row.data();
    const SoftmaxState state = state_at(shape, row),
                       part = state_at(shape, row + unit_elements(shape));
    const TokenRun& run = runs[i / shape.kv_heads];
    const Task task(ctx, shape, tokens, run, layer, i % shape.kv_heads, q,
                    row + 2 * unit_elements(shape));
    task.visit(0, state);
    for (int64_t b = 1; b < task.num_blocks(); ++b) {
      task.visit(b, part);
      task.join(b, state, part);
    }
    task.finish(state, run.first, out);
  });
}

// One run, too few kv heads for the threads: (kv head, block) in waves, then the joins in block
// order. Same bits.
void attend_split(const OpContext& ctx, const AttentionShape& shape, const TokenPosition* tokens,
                  const TokenRun& run, int64_t layer, const float* q, float* partials, float* out) {
  const int64_t unit = unit_elements(shape), heads = shape.kv_heads;
  const int64_t blocks = tokens[run.first + run.count - 1].pos / kKvBlock + 1;
  const int64_t wave = std::max<int64_t>(kPartialUnits / heads, 1);
  float* states = partials + wave * heads * unit;  // (kv_heads) units
  const auto task_of = [&](int64_t head, int thread) {
    return Task(ctx, shape, tokens, run, layer, head, q,
                (*ctx.scratch)[static_cast<std::size_t>(thread)].row.data());
  };
  for (int64_t first = 0; first < blocks; first += wave) {
    const int64_t count = std::min(wave, blocks - first);
    parallel_for(ctx.num_threads, 0, heads * count, 1, [&](int64_t i, int64_t, int thread) {
      const int64_t block = i / heads, head = i % heads;  // as they lie in memory
      task_of(head, thread)
          .visit(first + block, state_at(shape, partials + (head * count + block) * unit));
    });
    parallel_for(ctx.threads_for(heads * count * unit * 4), 0, heads, 1,
                 [&](int64_t head, int64_t, int thread) {
                   const Task task = task_of(head, thread);
                   const SoftmaxState state = state_at(shape, states + head * unit);
                   for (int64_t b = 0; b < count; ++b) {
                     float* part = partials + (head * count + b) * unit;
                     if (first + b == 0) {
                       std::memcpy(state.m, part, static_cast<std::size_t>(unit) * sizeof(float));
                     } else {
                       task.join(first + b, state, state_at(shape, part));
                     }
                   }
                   if (first + count == blocks) task.finish(state, run.first, out);
                 });
  }
}

}  // namespace

int64_t find_runs(const AttentionShape& shape, const TokenPosition* tokens, int64_t m,
                  TokenRun* runs) {
  const int64_t most = std::max<int64_t>(kRunRows / shape.group(), 1);
  int64_t n = 0;
  for (int64_t i = 0; i < m; ++i) {
    const bool joins = n && runs[n - 1].count < most && tokens[i].blocks == tokens[i - 1].blocks;
    if (joins) {
      ++runs[n - 1].count;
    } else {
      runs[n++] = {i, 1};
    }
  }
  return n;
}

int64_t attention_row_elements(const AttentionShape& shape) {
  return 2 * unit_elements(shape) + most_rows(shape) * shape.head_dim;
}

int64_t attention_partial_elements(const AttentionShape& shape) {
  const int64_t wave = std::max<int64_t>(kPartialUnits / shape.kv_heads, 1);
  return (wave + 1) * shape.kv_heads * unit_elements(shape);
}

void rotate_and_append(const OpContext& ctx, const AttentionShape& shape,
                       const TokenPosition* tokens, int64_t m, int64_t layer, const float* cos,
                       const float* sin, float* q, float* k, const float* v) {
  const FloatKernels& f32 = ctx.kernels->f32;
  const int64_t d = shape.head_dim, kv_dim = shape.kv_heads * d,
                row_bytes = (shape.heads + 2 * shape.kv_heads) * d * 4;
  parallel_for(ctx.threads_for(m * row_bytes), 0, m, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float *c = cos + t * (d / 2), *s = sin + t * (d / 2);
      f32.rope(q + t * shape.heads * d, shape.heads, d, c, s);
      f32.rope(k + t * kv_dim, shape.kv_heads, d, c, s);
      const TokenPosition& token = tokens[t];
      for (int64_t h = 0; h < shape.kv_heads; ++h) {
        const KvBlock block = token.layout->at(token.blocks[token.pos / kKvBlock], layer, h);
        f32.append_kv[static_cast<int>(token.layout->type)](
            block, token.pos % kKvBlock, d, k + t * kv_dim + h * d, v + t * kv_dim + h * d);
      }
    }
  });
}

void attend(const OpContext& ctx, const AttentionShape& shape, const TokenPosition* tokens,
            const TokenRun* runs, int64_t num_runs, int64_t layer, const float* q, float* partials,
            float* out) {
  const int64_t longest = tokens[runs[num_runs - 1].first].pos;
  int64_t positions = 0;
  for (int64_t r = 0; r < num_runs; ++r) positions += tokens[runs[r].first].pos + 1;
  const int64_t kv_bytes =
      positions * shape.kv_heads * shape.head_dim * 2 * tokens[0].layout->element_bytes();
  const int threads = ctx.threads_for(kv_bytes);
  if (num_runs == 1 && threads > 1 && longest >= kKvBlock && shape.kv_heads < 8 * threads) {
    return attend_split(ctx, shape, tokens, runs[0], layer, q, partials, out);
  }
  attend_whole(ctx, shape, tokens, runs, num_runs, layer, q, out, threads);
}

}  // namespace bitinfer
