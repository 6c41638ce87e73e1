#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "threads/dealt_task.h"
#include "threads/thread_pool.h"

namespace bitinfer {
namespace {

constexpr int64_t kRunRows = 16;       // query rows (tokens x heads of a group) of a task
constexpr int64_t kHeadsTogether = 3;  // of one token: the states of more would push blocks out
constexpr int64_t kPartialElements = 512 * 1024;  // floats of results that wait for their join

int64_t most_rows(const AttentionShape& shape) { return std::max(kRunRows, shape.group()); }

// Floats of the state of `rows` query rows: m and l of each, then o (rows, padded_dim).
int64_t state_elements(const AttentionShape& shape, int64_t rows) {
  return round_up(2 * rows, 16) + rows * shape.padded_dim();
}

SoftmaxState state_at(const AttentionShape& shape, int64_t rows, float* at) {
  return {at, at + rows, at + round_up(2 * rows, 16), shape.padded_dim()};
}

// The first position that a token at pos sees.
int64_t first_seen(int64_t pos, int64_t window) { return std::max(pos + 1 - window, int64_t{0}); }

// Attention of one (run, kv head), block by block.
class Task {
 public:
  // q_rows: most_rows x head_dim floats, for the rows of several tokens.
  Task(const AttentionCall& call, const TokenRun& run, int64_t kv_head, float* q_rows)
      : call_(call),
        shape_(call.shape),
        tokens_(call.tokens + run.first),
        run_(run),
        rows_(run.count * shape_.group()),
        kv_head_(kv_head) {
    const int64_t group = shape_.group(), row = group * shape_.head_dim;
    for (int64_t t = 0; t < run.count; ++t) {
      const int64_t at = (run.first + t) * shape_.heads + kv_head * group;
      std::memcpy(factors_ + t * group, call.q_factors + at,
                  static_cast<std::size_t>(group) * sizeof(float));
      q_ = call.q + at * shape_.head_dim;
      if (run.count > 1)
        std::memcpy(q_rows + t * row, q_, static_cast<std::size_t>(row) * sizeof(float));
    }
    if (run.count > 1) q_ = q_rows;
  }

  int64_t rows() const { return rows_; }
  // A row sees something of blocks [begin_block, end_block).
  int64_t begin_block(int64_t row) const {
    return first_seen(pos_of(row), call_.window) / kKvBlock;
  }
  int64_t end_block(int64_t row) const { return pos_of(row) / kKvBlock + 1; }

  // Rows [first_row, end_row) see something of the block: positions ascend with the rows.
  int64_t first_row(int64_t block) const {
    int64_t row = 0;
    while (end_block(row) <= block) row += shape_.group();
    return row;
  }
  int64_t end_row(int64_t block) const {
    int64_t row = rows_;
    while (begin_block(row - 1) > block) row -= shape_.group();
    return row;
  }

  // Partial result of the rows that see the block into out; (next_block, next_head) comes after it.
  void visit(int64_t block, int64_t next_block, int64_t next_head, const SoftmaxState& out) const {
    const TokenPosition& token = tokens_[0];
    const KvLayout& layout = *token.layout;
    int32_t unseen[kMaxQueryRows], seen[kMaxQueryRows];
    const int64_t first = first_row(block), end = end_row(block), at = block * kKvBlock;
    for (int64_t r = first; r < end; ++r) {
      const int64_t pos = pos_of(r);
      unseen[r] = static_cast<int32_t>(std::max(first_seen(pos, call_.window) - at, int64_t{0}));
      seen[r] = static_cast<int32_t>(std::min(pos + 1 - at, kKvBlock));
    }
    const QueryRows rows{q_ + first * shape_.head_dim,
                         shape_.head_dim,
                         factors_ + first,
                         unseen + first,
                         seen + first,
                         end - first};
    call_.ctx.kernels->f32.attend_block[static_cast<int>(layout.type)](
        layout.at(token.blocks[block], call_.layer, kv_head_),
        layout.at(token.blocks[next_block], call_.layer, next_head).k, shape_.head_dim, rows,
        out.from(first));
  }

  // Joins the block into the states of the rows that see it; a row's first block makes its state.
  void join(int64_t block, const SoftmaxState& state, const SoftmaxState& part) const {
    const int64_t first = first_row(block);
    int64_t end = end_row(block);
    for (; end > first && block == begin_block(end - 1); --end) copy(end - 1, part, state);
    call_.ctx.kernels->f32.join_softmax(state.from(first), part.from(first), end - first);
  }

  void finish(int64_t row, const SoftmaxState& state) const {
    const int64_t head = kv_head_ * shape_.group() + row % shape_.group();
    const int64_t token = run_.first + row / shape_.group();
    call_.ctx.kernels->f32.divide(state.o + row * state.o_stride, state.l[row], shape_.head_dim,
                                  call_.out + (token * shape_.heads + head) * shape_.head_dim);
  }

 private:
  int64_t pos_of(int64_t row) const { return tokens_[row / shape_.group()].pos; }
  static void copy(int64_t row, const SoftmaxState& part, const SoftmaxState& state) {
    state.m[row] = part.m[row];
    state.l[row] = part.l[row];
    std::memcpy(state.o + row * state.o_stride, part.o + row * part.o_stride,
                static_cast<std::size_t>(state.o_stride) * sizeof(float));
  }

  const AttentionCall& call_;
  const AttentionShape& shape_;
  const TokenPosition* tokens_;
  TokenRun run_;
  int64_t rows_, kv_head_;
  const float* q_ = nullptr;
  float factors_[kMaxQueryRows];
};

float* row_scratch(const AttentionCall& call, int thread) {
  return (*call.ctx.scratch)[static_cast<std::size_t>(thread)].row.data();
}

// Neighbouring kv heads of a run, block by block, on one thread: one, or some of a single token.
void attend_together(const AttentionCall& call, const TokenRun& run, int64_t first, int64_t count,
                     int thread) {
  const AttentionShape& shape = call.shape;
  float* q_rows = row_scratch(call, thread);
  float* states = q_rows + most_rows(shape) * shape.head_dim;
  std::optional<Task> made[kHeadsTogether];
  const Task* tasks[kHeadsTogether];
  for (int64_t i = 0; i < count; ++i) tasks[i] = &made[i].emplace(call, run, first + i, q_rows);
  const int64_t rows = tasks[0]->rows(), unit = state_elements(shape, rows);
  const SoftmaxState part = state_at(shape, rows, states + count * unit);
  const auto state = [&](int64_t i) { return state_at(shape, rows, states + i * unit); };
  const int64_t begin = tasks[0]->begin_block(0), end = tasks[0]->end_block(rows - 1);
  const int64_t after = std::min(first + count, shape.kv_heads - 1);
  const int64_t pieces = (end - begin) * count;
  for (int64_t p = 0; p < pieces; ++p) {
    const int64_t b = begin + p / count, i = p % count, next = p + 1;
    const bool last = next == pieces;
    tasks[i]->visit(b, last ? begin : begin + next / count, last ? after : first + next % count,
                    b == begin ? state(i) : part);
    if (b > begin) tasks[i]->join(b, state(i), part);
  }
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t r = 0; r < rows; ++r) tasks[i]->finish(r, state(i));
  }
}

// Kv heads [first, first + count) of a run, on one thread. Heads of a block lie side by side in
// memory, and jumps cost: the CPU reads on behind each piece.
void attend_heads(const AttentionCall& call, const TokenRun& run, int64_t first, int64_t count,
                  int thread) {
  const int64_t most = run.count == 1 ? kHeadsTogether : 1;
  for (int64_t done = 0; done < count; done += most)
    attend_together(call, run, first + done, std::min(most, count - done), thread);
}

void attend_whole(const AttentionCall& call, const TokenRun* runs, int64_t num_runs, int threads) {
  const int64_t heads = call.shape.kv_heads, all = num_runs * heads;
  parallel_for(threads, 0, all, Chunks{1, threads == 1 ? heads : kHeadsTogether},
               [&](int64_t begin, int64_t end, int thread) {
                 for (int64_t here; begin < end; begin += here) {
                   here = std::min(end - begin, heads - begin % heads);
                   attend_heads(call, runs[begin / heads], begin % heads, here, thread);
                 }
               });
}

// One run, too few kv heads for the threads: each thread has as many whole heads as the others;
// the blocks of the rest, of one head at least, are dealt in waves so that all end together, and
// joined in block order. Same bits.
void attend_split(const AttentionCall& call, const TokenRun& run, int threads, float* partials) {
  const AttentionShape& shape = call.shape;
  const int64_t whole = (shape.kv_heads - 1) / threads, first_head = whole * threads;
  const int64_t heads = shape.kv_heads - first_head, rows = run.count * shape.group(),
                unit = state_elements(shape, rows);
  const int64_t begin = first_seen(call.tokens[run.first].pos, call.window) / kKvBlock;
  const int64_t blocks = call.tokens[run.first + run.count - 1].pos / kKvBlock + 1;
  const int64_t wave = std::max<int64_t>(kPartialElements / (heads * unit), 1);
  float* states = partials + wave * heads * unit;  // (heads) units
  for (int64_t first = begin; first < blocks; first += wave) {
    const int64_t count = std::min(wave, blocks - first), dealt = heads * count;
    const int64_t counts[] = {first == begin && whole > 0 ? threads : 0, dealt};
    const auto part = [&](int64_t head, int64_t block) {
      return state_at(shape, rows, partials + (head * count + block - first) * unit);
    };
    parallel_for(threads, 0, counts[0] + dealt, 1, [&](int64_t i, int64_t, int thread) {
      const DealtTask at = dealt_task(counts, 2, threads, i);
      if (at.kind == 0) return attend_heads(call, run, at.index * whole, whole, thread);
      const int64_t block = first + at.index / heads, head = at.index % heads;
      const int64_t next = std::min(at.index + 1, dealt - 1);  // as they lie in memory
      const Task task(call, run, first_head + head, row_scratch(call, thread));
      task.visit(block, first + next / heads, first_head + next % heads, part(head, block));
    });
    const int64_t last = first + count;
    parallel_for(call.ctx.threads_for(dealt * unit * 4), 0, heads, 1,
                 [&](int64_t head, int64_t, int thread) {
                   const Task task(call, run, first_head + head, row_scratch(call, thread));
                   const SoftmaxState state = state_at(shape, rows, states + head * unit);
                   for (int64_t b = first; b < last; ++b) task.join(b, state, part(head, b));
                   if (last < blocks) return;
                   for (int64_t row = 0; row < rows; ++row) task.finish(row, state);
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
  const int64_t rows = most_rows(shape), one = state_elements(shape, shape.group());
  return rows * shape.head_dim +
         std::max(2 * state_elements(shape, rows), (kHeadsTogether + 1) * one);
}

int64_t attention_partial_elements(const AttentionShape& shape) {
  const int64_t block = shape.kv_heads * state_elements(shape, most_rows(shape));
  return std::max(kPartialElements, block) + block;
}

void rotate_and_append(const AttentionCall& call, int64_t m, const float* cos, const float* sin,
                       float* k, const float* v) {
  const FloatKernels& f32 = call.ctx.kernels->f32;
  const AttentionShape& shape = call.shape;
  const int64_t d = shape.head_dim, group = shape.group(), kv_heads = shape.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  // Each number of a key is stored to a cache line of its own.
  const int threads = call.ctx.threads_for(m * kv_heads * d * 64);
  const int64_t grain = std::max<int64_t>(m * kv_heads / (4 * threads), 1);
  parallel_for(threads, 0, m * kv_heads, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / kv_heads, h = i % kv_heads;
      const TokenPosition& token = call.tokens[t];
      const int type = static_cast<int>(token.layout->type);
      const float *c = cos + t * (d / 2), *s = sin + t * (d / 2);
      float* q = call.q + i * group * d;
      f32.rope(q, group, d, c, s);
      for (int64_t g = 0; g < group; ++g)
        call.q_factors[i * group + g] = f32.prepare_query[type](q + g * d, d, scale);
      f32.rope(k + i * d, 1, d, c, s);
      const KvBlock block = token.layout->at(token.blocks[token.pos / kKvBlock], call.layer, h);
      f32.append_kv[type](block, token.pos % kKvBlock, d, k + i * d, v + i * d);
    }
  });
}

void attend(const AttentionCall& call, const TokenRun* runs, int64_t num_runs, float* partials) {
  const AttentionShape& shape = call.shape;
  const TokenPosition* tokens = call.tokens;
  int64_t positions = 0;  // read, about
  for (int64_t r = 0; r < num_runs; ++r)
    positions += std::min(tokens[runs[r].first].pos + 1, call.window);
  const int64_t kv_bytes =
      positions * shape.kv_heads * shape.head_dim * 2 * tokens[0].layout->element_bytes();
  const int threads = call.ctx.threads_for(kv_bytes);
  if (num_runs == 1 && threads > 1 && positions > kKvBlock && shape.kv_heads < 8 * threads)
    return attend_split(call, runs[0], threads, partials);
  attend_whole(call, runs, num_runs, threads);
}

}  // namespace bitinfer
