// Blocks of kKvBlock positions that KV caches are made of. Several caches and handles may hold one
// block; the last that lets go of it gives it back. Memory is taken from the system when a block is
// first written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/kv_layout.h"
#include "threads/fork_safe_mutex.h"

namespace bitinfer {

KvType kv_type(const std::string& name);  // "f32", "f16" or "int8"
const char* kv_name(KvType type);

// Safe for many threads.
class KvPool {
 public:
  // Blocks are mapped so many at a time; with `bounded` there are never more than those of the
  // first mapping.
  KvPool(const KvLayout& layout, int64_t blocks_at_once, bool bounded);

  const KvLayout& layout() const { return layout_; }
  int64_t num_blocks() const { return bounded_ ? blocks_at_once_ : 0; }  // 0: no bound
  int64_t used_blocks() const;
  uint8_t* address(int32_t block) const;

  // A block of zeros with one holder. Throws std::invalid_argument if the pool is used up.
  int32_t take();
  void hold(int32_t block);          // one holder more
  void release(int32_t block);       // one less
  bool shared(int32_t block) const;  // several holders

 private:
  struct Unmap {
    int64_t bytes;
    void operator()(uint8_t* p) const;
  };
  void map_more();

  const KvLayout layout_;
  const int64_t blocks_at_once_;
  const bool bounded_;
  mutable ForkSafeMutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<uint8_t, Unmap>> mappings_;
  std::vector<int32_t> holders_;  // of each block that is mapped
  std::vector<int32_t> freed_;
  int64_t touched_ = 0;  // blocks below were in use at some time
};

// A block that stays as it is while the handle lives.
class HeldBlock {
 public:
  HeldBlock(std::shared_ptr<KvPool> pool, int32_t block) : pool_(std::move(pool)), block_(block) {
    pool_->hold(block_);
  }
  ~HeldBlock() { pool_->release(block_); }
  HeldBlock(const HeldBlock&) = delete;
  HeldBlock& operator=(const HeldBlock&) = delete;

  const std::shared_ptr<KvPool>& pool() const { return pool_; }
  int32_t block() const { return block_; }
  bool shared() const { return pool_->shared(block_); }  // by a cache or another handle

 private:
  std::shared_ptr<KvPool> pool_;
  int32_t block_;
};

}  // namespace bitinfer
