// The decoder of all families: forward(ragged batch of tokens, caches) -> logits in one call.
//
// Everything that a step needs is allocated when the model is loaded, or when num_threads or
// prefill_chunk change.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/kv_cache.h"
#include "model/sparse_ffn.h"
#include "model/spec.h"
#include "model/weights.h"
#include "threads/fork_safe_mutex.h"

namespace bitinfer {

enum class LogitsRows { kNone, kLast, kAll };  // of each sequence
enum class RowKind { kLogits, kHidden };  // hidden: the normed state that the head would multiply

struct Sequence {
  const int32_t* token_ids;
  int64_t num_tokens;  // >= 1
  KvCache* cache;      // num_tokens positions are appended
  LogitsRows rows = LogitsRows::kLast;
};

class Decoder {
 public:
  // The bytes behind `tensors` must outlive the decoder.
  Decoder(const DecoderSpec& spec, const TensorMap& tensors, int num_threads);
  ~Decoder();

  // out: (rows, vocab_size) of logits or (rows, hidden_size), the rows of each sequence (none, its
  // last token's or all) in turn, `top` as in head_logits. Any order of calls, batch or chunking
  // gives the same bits for the same tokens. Throws std::invalid_argument before anything has
  // changed, also when a pool has too few blocks; safe for many threads.
  void forward(const std::vector<Sequence>& batch, float* out, const TopTokens& top = {},
               RowKind kind = RowKind::kLogits);
  int64_t row_elements(RowKind kind) const {
    return kind == RowKind::kHidden ? spec_.hidden_size : spec_.vocab_size;
  }

  std::unique_ptr<KvCache> new_cache(int64_t capacity, KvType type) const;
  // Memory for caches that share beginnings, of `num_blocks` blocks and no more.
  std::shared_ptr<KvPool> new_pool(int64_t num_blocks, KvType type) const;
  KvLayout kv_layout(KvType type) const;

  const DecoderSpec& spec() const { return spec_; }
  const DecoderWeights& weights() const { return weights_; }
  // Of the last call that made logits: bytes read of the head, and rows of both planes of a
  // two-plane head.
  int64_t head_bytes() const { return head_bytes_ ? head_bytes_.load() : weights_.head_bytes; }
  int64_t head_candidates() const { return head_candidates_; }
  int num_threads() const { return num_threads_; }
  void set_num_threads(int num_threads);
  int64_t prefill_chunk() const { return prefill_chunk_; }
  void set_prefill_chunk(int64_t tokens);
  // The GEMV family in use, unless one is forced: the preferred one, or the row's own choice.
  GemvFamily gemv_family() const { return gemv_for(weights_.packing, preferred_gemv()).family; }
  void prefer_gemv(std::optional<GemvFamily> family);

  // Skips idle neurons of a squared-ReLU FFN in decode steps, where that is faster, on copies of
  // the weights (model/sparse_ffn.h). Changes no bit. Throws std::invalid_argument for other
  // models.
  void set_sparse_ffn(bool on);
  bool sparse_ffn() const;
  std::vector<FfnDensity> ffn_density() const;  // of each layer; empty where dense
  // Of the ternary matrices, read for each token at these densities.
  int64_t ternary_bytes() const;

 private:
  struct State;  // activations of one chunk
  void check_batch(const std::vector<Sequence>& batch) const;
  void check_top(const TopTokens& top) const;
  void allocate(int num_threads, int64_t prefill_chunk);
  std::optional<GemvFamily> preferred_gemv() const;

  DecoderSpec spec_;
  DecoderWeights weights_;
  std::atomic<int> num_threads_;  // written under the lock, read at any time
  std::atomic<int64_t> prefill_chunk_{256};
  std::atomic<int> gemv_{-1};  // GemvFamily, or -1 for the row's own choice
  std::atomic<int64_t> head_bytes_{0}, head_candidates_{0};
  mutable ForkSafeMutex mutex_;
  std::unique_ptr<SparseFfn> sparse_;  // null: dense
  std::unique_ptr<State> state_;
};

}  // namespace bitinfer
