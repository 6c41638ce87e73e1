#include "model/kv_pool.h"

#include <sys/mman.h>

#include <cstring>
#include <mutex>
#include <new>

#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 47;
constexpr int64_t kMaxBlocks = int64_t{1} << 30;
constexpr int64_t kHugePage = 2 * 1024 * 1024;

uint8_t* map_zeroed(int64_t bytes, bool huge_pages) {
  void* p = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (huge_pages) madvise(p, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
#else
  (void)huge_pages;
#endif
  return static_cast<uint8_t*>(p);
}

}  // namespace

KvType kv_type(const std::string& name) {
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  BITINFER_CHECK(name == "int8", "dtype: expected f32, f16 or int8, got " << name);
  return KvType::kInt8;
}

const char* kv_name(KvType type) {
  return type == KvType::kF32 ? "f32" : type == KvType::kF16 ? "f16" : "int8";
}

void KvPool::Unmap::operator()(uint8_t* p) const { munmap(p, static_cast<std::size_t>(bytes)); }

KvPool::KvPool(const KvLayout& layout, int64_t blocks_at_once, bool bounded)
    : layout_(layout), blocks_at_once_(blocks_at_once), bounded_(bounded) {
  BITINFER_CHECK(blocks_at_once >= 1 && blocks_at_once < kMaxBlocks &&
                     layout.block_bytes() < kMaxBytes / blocks_at_once,
                 "blocks: " << blocks_at_once << " of " << layout.block_bytes()
                            << " bytes fit no address space");
  map_more();
}

void KvPool::map_more() {
  const int64_t bytes = blocks_at_once_ * layout_.block_bytes();
  const std::size_t blocks = (mappings_.size() + 1) * static_cast<std::size_t>(blocks_at_once_);
  BITINFER_CHECK(static_cast<int64_t>(blocks) < kMaxBlocks, "blocks: too many caches share them");
  holders_.reserve(blocks);
  freed_.reserve(blocks);
  mappings_.reserve(mappings_.size() + 1);
  mappings_.emplace_back(map_zeroed(bytes, layout_.block_bytes() >= kHugePage), Unmap{bytes});
  holders_.resize(blocks);
}

uint8_t* KvPool::address(int32_t block) const {
  const std::lock_guard<ForkSafeMutex> lock(mutex_);
  return mappings_[static_cast<std::size_t>(block / blocks_at_once_)].get() +
         block % blocks_at_once_ * layout_.block_bytes();
}

int64_t KvPool::used_blocks() const {
  const std::lock_guard<ForkSafeMutex> lock(mutex_);
  return touched_ - static_cast<int64_t>(freed_.size());
}

int32_t KvPool::take() {
  int32_t block;
  bool used_before = false;
  {
    const std::lock_guard<ForkSafeMutex> lock(mutex_);
    if (!freed_.empty()) {
      block = freed_.back();
      freed_.pop_back();
      used_before = true;
    } else {
      const auto mapped = static_cast<int64_t>(holders_.size());
      BITINFER_CHECK(touched_ < mapped || !bounded_, "caches: all "
                                                         << mapped << " blocks of " << kKvBlock
                                                         << " positions of the pool are in use");
      if (touched_ == mapped) map_more();
      block = static_cast<int32_t>(touched_++);
    }
    holders_[static_cast<std::size_t>(block)] = 1;
  }
  // Nothing of who had it before can be seen.
  if (used_before) std::memset(address(block), 0, static_cast<std::size_t>(layout_.block_bytes()));
  return block;
}

void KvPool::hold(int32_t block) {
  const std::lock_guard<ForkSafeMutex> lock(mutex_);
  ++holders_[static_cast<std::size_t>(block)];
}

void KvPool::release(int32_t block) {
  const std::lock_guard<ForkSafeMutex> lock(mutex_);
  if (--holders_[static_cast<std::size_t>(block)] == 0) freed_.push_back(block);
}

bool KvPool::shared(int32_t block) const {
  const std::lock_guard<ForkSafeMutex> lock(mutex_);
  return holders_[static_cast<std::size_t>(block)] > 1;
}

}  // namespace bitinfer
