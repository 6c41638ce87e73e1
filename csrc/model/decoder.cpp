#include "model/decoder.h"

#include <algorithm>

#include "dispatch/dispatch.h"
#include "model/forward_state.h"
#include "threads/float_mode.h"
#include "threads/thread_pool.h"
#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kMaxPrefillChunk = 4096;

// Marks the caches of a batch as in use for the length of a forward call.
class CacheLock {
 public:
  explicit CacheLock(const std::vector<Sequence>& batch) : batch_(batch) {
    for (; held_ < batch.size(); ++held_) {
      if (batch[held_].cache->acquire()) continue;
      release();
      BITINFER_CHECK(false, "caches: cache "
                                << held_
                                << " is in this batch twice, or another forward call is using it");
    }
  }
  ~CacheLock() { release(); }
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;

 private:
  void release() {
    for (std::size_t i = 0; i < held_; ++i) batch_[i].cache->release();
  }
  const std::vector<Sequence>& batch_;
  std::size_t held_ = 0;
};

// Takes the blocks that a batch will write, or throws and has taken none.
void reserve(const std::vector<Sequence>& batch) {
  std::size_t done = 0;
  try {
    for (; done < batch.size(); ++done) batch[done].cache->reserve(batch[done].num_tokens);
  } catch (...) {
    for (std::size_t i = 0; i < done; ++i) batch[i].cache->set_length(batch[i].cache->length());
    throw;
  }
}

void check_threads(int num_threads) {
  BITINFER_CHECK(num_threads >= 1 && num_threads <= kMaxThreads,
                 "num_threads: expected 1 to " << kMaxThreads << ", got " << num_threads);
}

void check_groups(const DecoderSpec& s) {
  const bool planes = s.activation_levels == kTwoPlaneLevels;
  BITINFER_CHECK(s.activation_levels == 127 || s.activation_levels == 128 || planes,
                 "activation_levels: expected 127, 128 or 16383, got " << s.activation_levels);
  BITINFER_CHECK(!planes || s.widest_row() < kMostTwoPlaneColumns,
                 "activation_levels: expected 127 or 128 for rows of " << kMostTwoPlaneColumns
                                                                       << " columns or more");
  const auto [size, count] = s.scale_groups;
  BITINFER_CHECK(size >= 0 && count >= 0 && (size == 0 || count == 0),
                 "scale_group_size: expected none where there is a scale_group_count, got "
                     << size << " and " << count);
  for (const int64_t k : {s.hidden_size, s.q_dim(), s.intermediate_size}) {
    BITINFER_CHECK(count == 0 || k % count == 0,
                   "scale_group_count: expected a number that divides " << k << ", got " << count);
  }
  BITINFER_CHECK(!s.activation_groups || (s.projection_norm != NormKind::kNone && (size || count)),
                 "activation_groups: expected a projection_norm and scale groups beside it");
}

}  // namespace

void check_spec(const DecoderSpec& s) {
  const auto positive = [](int64_t v, const char* name) {
    BITINFER_CHECK(v >= 1 && v < (int64_t{1} << 23), name << ": expected 1 to 8388607, got " << v);
  };
  positive(s.vocab_size, "vocab_size");
  positive(s.hidden_size, "hidden_size");
  positive(s.intermediate_size, "intermediate_size");
  positive(s.num_hidden_layers, "num_hidden_layers");
  positive(s.num_attention_heads, "num_attention_heads");
  positive(s.num_key_value_heads, "num_key_value_heads");
  positive(s.head_dim, "head_dim");
  positive(s.q_dim(), "num_attention_heads * head_dim");
  BITINFER_CHECK(
      s.head_dim % 2 == 0 && s.head_dim <= kMaxHeadDim,
      "head_dim: expected an even number up to " << kMaxHeadDim << ", got " << s.head_dim);
  BITINFER_CHECK(s.num_attention_heads % s.num_key_value_heads == 0 &&
                     s.num_attention_heads / s.num_key_value_heads <= kMaxQueryRows,
                 "num_attention_heads: expected a multiple of num_key_value_heads ("
                     << s.num_key_value_heads << "), at most " << kMaxQueryRows << " times it, got "
                     << s.num_attention_heads);
  check_groups(s);
  BITINFER_CHECK(s.projection_norm_eps >= 0.0f && s.projection_norm_eps < 1.0f,
                 "projection_norm_eps: expected 0 to 1, got " << s.projection_norm_eps);
  if (!s.sliding.empty()) {
    positive(s.sliding_window, "sliding_window");
    BITINFER_CHECK(static_cast<int64_t>(s.sliding.size()) == s.num_hidden_layers,
                   "layer_types: expected one for each of " << s.num_hidden_layers
                                                            << " layers, got " << s.sliding.size());
  }
  BITINFER_CHECK(s.rms_norm_eps >= 0.0f && s.rms_norm_eps < 1.0f,
                 "rms_norm_eps: expected 0 to 1, got " << s.rms_norm_eps);
}

Decoder::Decoder(const DecoderSpec& spec, const TensorMap& tensors, int num_threads)
    : spec_(spec), num_threads_(num_threads) {
  check_spec(spec);
  check_threads(num_threads);
  weights_ = load_weights(spec, tensors, num_threads);
  allocate(num_threads, prefill_chunk_);
}

Decoder::~Decoder() = default;

// The new state is complete before anything changes: an allocation that fails leaves the decoder as
// it was.
void Decoder::allocate(int num_threads, int64_t prefill_chunk) {
  state_ =
      std::make_unique<State>(spec_, weights_.packing, num_threads, prefill_chunk, sparse_.get());
  num_threads_ = num_threads;
  prefill_chunk_ = prefill_chunk;
}

void Decoder::set_num_threads(int num_threads) {
  check_threads(num_threads);
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  allocate(num_threads, prefill_chunk_);
}

void Decoder::set_prefill_chunk(int64_t tokens) {
  BITINFER_CHECK(tokens >= 1 && tokens <= kMaxPrefillChunk,
                 "prefill_chunk: expected 1 to " << kMaxPrefillChunk << " tokens, got " << tokens);
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  allocate(num_threads_, tokens);
}

void Decoder::prefer_gemv(std::optional<GemvFamily> family) {
  gemv_ = family ? static_cast<int>(*family) : -1;
}

std::optional<GemvFamily> Decoder::preferred_gemv() const {
  const int family = gemv_;
  if (family < 0) return std::nullopt;
  return static_cast<GemvFamily>(family);
}

void Decoder::set_sparse_ffn(bool on) {
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  if (on == (sparse_ != nullptr)) return;
  auto next = on ? std::make_unique<SparseFfn>(spec_, weights_, num_threads_) : nullptr;
  state_ =
      std::make_unique<State>(spec_, weights_.packing, num_threads_, prefill_chunk_, next.get());
  sparse_ = std::move(next);
}

bool Decoder::sparse_ffn() const {
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  return sparse_ != nullptr;
}

std::vector<FfnDensity> Decoder::ffn_density() const {
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  return sparse_ ? sparse_->density() : std::vector<FfnDensity>();
}

int64_t Decoder::ternary_bytes() const {
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  return weights_.ternary_bytes - (sparse_ ? sparse_->bytes_saved(weights_) : 0);
}

KvLayout Decoder::kv_layout(KvType type) const {
  return {type, spec_.num_hidden_layers, spec_.num_key_value_heads, spec_.head_dim};
}

std::unique_ptr<KvCache> Decoder::new_cache(int64_t capacity, KvType type) const {
  return std::make_unique<KvCache>(kv_layout(type), capacity);
}

std::shared_ptr<KvPool> Decoder::new_pool(int64_t num_blocks, KvType type) const {
  return std::make_shared<KvPool>(kv_layout(type), num_blocks, true);
}

void Decoder::check_batch(const std::vector<Sequence>& batch) const {
  BITINFER_CHECK(!batch.empty(), "token_ids: expected at least one sequence, got none");
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Sequence& s = batch[i];
    BITINFER_CHECK(s.num_tokens >= 1,
                   "token_ids: sequence " << i << " has no tokens, expected at least one");
    for (int64_t t = 0; t < s.num_tokens; ++t) {
      BITINFER_CHECK(s.token_ids[t] >= 0 && s.token_ids[t] < spec_.vocab_size,
                     "token_ids: sequence " << i << ", token " << t << ": expected 0 to "
                                            << spec_.vocab_size - 1 << ", got " << s.token_ids[t]);
    }
    BITINFER_CHECK(s.cache->layout().same_shape(kv_layout(s.cache->layout().type)),
                   "caches: cache " << i << " was made by a model of another shape");
    BITINFER_CHECK(s.num_tokens <= s.cache->capacity() - s.cache->length(),
                   "caches: cache " << i << " holds " << s.cache->length() << " of "
                                    << s.cache->capacity() << " positions: no room for "
                                    << s.num_tokens << " more");
  }
}

void Decoder::check_top(const TopTokens& top) const {
  BITINFER_CHECK(top.k >= 0, "top_k: expected 0 (all) or more, got " << top.k);
  BITINFER_CHECK(
      top.vocab_size >= 0 && top.vocab_size <= spec_.vocab_size,
      "vocab_size: expected 0 (all) to " << spec_.vocab_size << ", got " << top.vocab_size);
}

void Decoder::forward(const std::vector<Sequence>& batch, float* out, const TopTokens& top,
                      RowKind kind) {
  std::lock_guard<ForkSafeMutex> lock(mutex_);
  const CacheLock caches(batch);
  check_batch(batch);
  check_top(top);
  reserve(batch);
  const FloatMode mode;
  const KernelTable& kernels =
      active_table();  // asked once: another thread may switch rows at any time
  const GemvFamily family = gemv_family();
  state_->begin(kernels, gemv_of(kernels, weights_.packing, family), top, kind);
  bool any_logits = false;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Sequence& s = batch[i];
    any_logits |= kind == RowKind::kLogits && s.rows != LogitsRows::kNone;
    for (int64_t t = 0; t < s.num_tokens; ++t) {
      const bool wanted =
          s.rows == LogitsRows::kAll || (s.rows == LogitsRows::kLast && t + 1 == s.num_tokens);
      state_->add_token(s.token_ids[t], *s.cache, s.cache->length() + t, wanted);
      const bool last = i + 1 == batch.size() && t + 1 == s.num_tokens;
      if (state_->size() == prefill_chunk_ || last) out = state_->run(weights_, out);
    }
  }
  for (const Sequence& s : batch) s.cache->set_length(s.cache->length() + s.num_tokens);
  if (const PlaneScratch* head = state_->plane_scratch(); head && any_logits) {
    head_candidates_ = head->candidates;
    head_bytes_ = head->bytes_read;
  }
}

}  // namespace bitinfer
