// Keys and values of one sequence, in blocks of kKvBlock positions from a pool. Sequences with a
// common beginning hold the same blocks; a block that others hold too is copied before it is
// written.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/kv_pool.h"
#include "ops/kv_layout.h"

namespace bitinfer {

class KvCache {
 public:
  // With a pool of its own, which copies share.
  KvCache(const KvLayout& layout, int64_t capacity);
  // With `length` positions that lie in `blocks`, of the same pool.
  KvCache(std::shared_ptr<KvPool> pool, int64_t capacity,
          const std::vector<const HeldBlock*>& blocks = {}, int64_t length = 0);
  ~KvCache() { drop(0); }
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvLayout& layout() const { return pool_->layout(); }
  int64_t capacity() const { return capacity_; }     // positions
  int64_t length() const { return length_.load(); }  // positions stored
  int64_t nbytes() const;                            // at full capacity
  int64_t used_bytes() const;                        // of the blocks in use

  // Forgets all positions from `length` on; they may be appended anew.
  void trim(int64_t length);
  // A cache of its own with equal content, in the same blocks until one of the two is appended to.
  std::unique_ptr<KvCache> copy() const;
  // A handle of the block with positions [index · kKvBlock, ...) that are stored.
  std::unique_ptr<HeldBlock> block(int64_t index) const;

  // Stores `count` positions more, which lie in the `bytes` of a block of the same layout; what is
  // stored before must end with a block.
  void append_block(const uint8_t* bytes, int64_t count);

  // Blocks that `reserve` would take for `count` positions more.
  int64_t new_blocks(int64_t count) const;

  // ---- for the decoder ----
  uint8_t* const* blocks() const { return addresses_.data(); }
  // Takes the blocks for `count` positions more, none of which others hold. Throws
  // std::invalid_argument, and has taken none, if the pool has too few.
  void reserve(int64_t count);
  // Ends at `length` positions and gives back what is reserved beyond.
  void set_length(int64_t length);
  // Marks the cache as used by one call; false if it already is.
  bool acquire() const { return !busy_.exchange(true); }
  void release() const { busy_.store(false); }

 private:
  void append(int32_t block);
  void drop(std::size_t kept);  // all blocks but the first `kept`
  void unshare(std::size_t index);

  std::shared_ptr<KvPool> pool_;
  int64_t capacity_;
  std::atomic<int64_t> length_{0};
  mutable std::atomic<bool> busy_{false};
  std::vector<int32_t> blocks_;
  std::vector<uint8_t*> addresses_;  // of blocks_; stays where it is
};

}  // namespace bitinfer
