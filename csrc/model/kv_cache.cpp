#include "model/kv_cache.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kMaxCapacity = int64_t{1}
                                 << 24;  // fp32 holds every position below exactly (RoPE)
constexpr int64_t kMaxBytes = int64_t{1} << 47;
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

void KvCache::Unmap::operator()(uint8_t* p) const { munmap(p, static_cast<std::size_t>(bytes)); }

KvCache::KvCache(const KvLayout& layout, int64_t capacity) : layout_(layout), capacity_(capacity) {
  BITINFER_CHECK(capacity >= 1 && capacity <= kMaxCapacity,
                 "capacity: expected 1 to " << kMaxCapacity << " positions, got " << capacity);
  const int64_t block_bytes = layout.block_bytes();
  BITINFER_CHECK(block_bytes < kMaxBytes / ceil_div(capacity, kKvBlock),
                 "capacity: " << capacity << " positions of this model fit no address space");
  memory_ = {map_zeroed(nbytes(), block_bytes >= kHugePage), Unmap{nbytes()}};
  for (int64_t b = 0; b * kKvBlock < capacity; ++b)
    blocks_.push_back(memory_.get() + b * block_bytes);
}

int64_t KvCache::nbytes() const { return ceil_div(capacity_, kKvBlock) * layout_.block_bytes(); }

int64_t KvCache::used_bytes() const { return ceil_div(length(), kKvBlock) * layout_.block_bytes(); }

void KvCache::trim(int64_t length) {
  const Hold hold(*this);
  BITINFER_CHECK(length >= 0 && length <= length_.load(),
                 "length: expected 0 to " << length_.load() << " (the positions in the cache), got "
                                          << length);
  set_length(length);
}

std::unique_ptr<KvCache> KvCache::copy() const {
  const Hold hold(*this);
  auto other = std::make_unique<KvCache>(layout_, capacity_);
  std::memcpy(other->memory_.get(), memory_.get(), static_cast<std::size_t>(used_bytes()));
  other->set_length(length());
  return other;
}

}  // namespace bitinfer
