#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kMaxCapacity = int64_t{1}
                                 << 24;  // fp32 holds every position below exactly (RoPE)

int64_t blocks_for(int64_t positions) { return ceil_div(positions, kKvBlock); }

int64_t checked(int64_t capacity) {
  BITINFER_CHECK(capacity >= 1 && capacity <= kMaxCapacity,
                 "capacity: expected 1 to " << kMaxCapacity << " positions, got " << capacity);
  return capacity;
}

// Keeps other calls away from a cache for its own life.
class Hold {
 public:
  explicit Hold(const KvCache& cache) : cache_(cache) {
    BITINFER_CHECK(cache.acquire(), "cache: a forward call is using it");
  }
  ~Hold() { cache_.release(); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  const KvCache& cache_;
};

}  // namespace

KvCache::KvCache(const KvLayout& layout, int64_t capacity)
    : KvCache(std::make_shared<KvPool>(layout, blocks_for(checked(capacity)), false), capacity) {}

KvCache::KvCache(std::shared_ptr<KvPool> pool, int64_t capacity,
                 const std::vector<const HeldBlock*>& blocks, int64_t length)
    : pool_(std::move(pool)), capacity_(checked(capacity)), length_(length) {
  const auto count = static_cast<int64_t>(blocks.size());
  BITINFER_CHECK(length >= 0 && length <= capacity && blocks_for(length) == count,
                 "length: expected at most " << capacity << " positions in " << count
                                             << " blocks of " << kKvBlock << ", got " << length);
  for (const HeldBlock* held : blocks)
    BITINFER_CHECK(held && held->pool() == pool_, "blocks: expected blocks of this pool");
  blocks_.reserve(static_cast<std::size_t>(blocks_for(capacity)));
  addresses_.reserve(blocks_.capacity());
  for (const HeldBlock* held : blocks) {
    pool_->hold(held->block());
    append(held->block());
  }
}

int64_t KvCache::nbytes() const { return blocks_for(capacity_) * layout().block_bytes(); }

int64_t KvCache::used_bytes() const { return blocks_for(length()) * layout().block_bytes(); }

void KvCache::trim(int64_t length) {
  const Hold hold(*this);
  BITINFER_CHECK(length >= 0 && length <= length_.load(),
                 "length: expected 0 to " << length_.load() << " (the positions in the cache), got "
                                          << length);
  set_length(length);
}

std::unique_ptr<KvCache> KvCache::copy() const {
  const Hold hold(*this);
  auto other = std::make_unique<KvCache>(pool_, capacity_);
  for (const int32_t block : blocks_) {
    pool_->hold(block);
    other->append(block);
  }
  other->length_.store(length());
  return other;
}

std::unique_ptr<HeldBlock> KvCache::block(int64_t index) const {
  const Hold hold(*this);
  const int64_t count = blocks_for(length());
  BITINFER_CHECK(index >= 0 && index < count,
                 "index: expected a block below " << count << ", got " << index);
  return std::make_unique<HeldBlock>(pool_, blocks_[static_cast<std::size_t>(index)]);
}

void KvCache::append_block(const uint8_t* bytes, int64_t count) {
  const Hold hold(*this);
  const int64_t before = length();
  BITINFER_CHECK(before % kKvBlock == 0,
                 "cache: expected a multiple of " << kKvBlock << " positions, got " << before);
  const int64_t most = std::min<int64_t>(kKvBlock, capacity_ - before);
  BITINFER_CHECK(count >= 1 && count <= most,
                 "length: expected 1 to " << most << " positions, got " << count);
  reserve(count);
  std::memcpy(addresses_.back(), bytes, static_cast<std::size_t>(layout().block_bytes()));
  set_length(before + count);
}

int64_t KvCache::new_blocks(int64_t count) const {
  const Hold hold(*this);
  BITINFER_CHECK(count >= 0 && count <= capacity_ - length(),
                 "count: expected 0 to " << capacity_ - length() << " positions, got " << count);
  const bool copies = count > 0 && length() % kKvBlock && pool_->shared(blocks_.back());
  return blocks_for(length() + count) - blocks_for(length()) + copies;
}

void KvCache::append(int32_t block) {
  blocks_.push_back(block);
  addresses_.push_back(pool_->address(block));
}

void KvCache::drop(std::size_t kept) {
  for (std::size_t b = blocks_.size(); b > kept; --b) pool_->release(blocks_[b - 1]);
  if (kept < blocks_.size()) {
    blocks_.resize(kept);
    addresses_.resize(kept);
  }
}

void KvCache::set_length(int64_t length) {
  drop(static_cast<std::size_t>(blocks_for(length)));
  length_.store(length);
}

void KvCache::reserve(int64_t count) {
  const int64_t before = length();
  try {
    for (const int64_t end = blocks_for(before + count);
         static_cast<int64_t>(blocks_.size()) < end;)
      append(pool_->take());
    if (before % kKvBlock) unshare(static_cast<std::size_t>(before / kKvBlock));
  } catch (...) {
    set_length(before);
    throw;
  }
}

// A block that others hold is replaced by a copy, which may be written.
void KvCache::unshare(std::size_t index) {
  const int32_t old = blocks_[index];
  if (!pool_->shared(old)) return;
  const int32_t own = pool_->take();
  uint8_t* const to = pool_->address(own);
  std::memcpy(to, addresses_[index], static_cast<std::size_t>(layout().block_bytes()));
  blocks_[index] = own;
  addresses_[index] = to;
  pool_->release(old);
}

}  // namespace bitinfer
