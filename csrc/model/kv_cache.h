// Keys and values of one sequence, in blocks of kKvBlock positions. Memory is taken from the system
// when a block is first written, so a large capacity costs nothing until it is used.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "ops/kv_layout.h"

namespace bitinfer {

class KvCache {
 public:
  KvCache(const KvLayout& layout, int64_t capacity);

  const KvLayout& layout() const { return layout_; }
  int64_t capacity() const { return capacity_; }     // positions
  int64_t length() const { return length_.load(); }  // positions stored
  int64_t nbytes() const;                            // at full capacity
  int64_t used_bytes() const;                        // of the blocks in use

  // Forgets all positions from `length` on; they may be appended anew.
  void trim(int64_t length);
  // A cache of its own with equal content.
  std::unique_ptr<KvCache> copy() const;

  // ---- for the decoder ----
  uint8_t* const* blocks() const { return blocks_.data(); }
  void set_length(int64_t length) { length_.store(length); }
  // Marks the cache as used by one call; false if it already is.
  bool acquire() const { return !busy_.exchange(true); }
  void release() const { busy_.store(false); }

 private:
  struct Unmap {
    int64_t bytes;
    void operator()(uint8_t* p) const;
  };
  KvLayout layout_;
  int64_t capacity_;
  std::atomic<int64_t> length_{0};
  mutable std::atomic<bool> busy_{false};
  std::unique_ptr<uint8_t, Unmap> memory_;
  std::vector<uint8_t*> blocks_;
};

}  // namespace bitinfer
