// Owning zeroed memory straight from the system, in huge pages where it gives them to who asks:
// weights are read from end to end, and 4 KiB pages end every prefetch of the hardware.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace bitinfer {

constexpr std::size_t kHugePage = std::size_t{2} << 20;  // of x86, and of Arm with 4 KiB pages

class HugeMemory {
 public:
  // Begins at a multiple of kHugePage. Throws std::bad_alloc.
  explicit HugeMemory(std::size_t bytes) : bytes_(bytes) {
    const std::size_t end = page_end(bytes), mapped = end + kHugePage;
    if (bytes == 0 || mapped <= bytes) throw std::bad_alloc();
    void* p = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    auto* const first = static_cast<uint8_t*>(p);
    const std::size_t before = -reinterpret_cast<uintptr_t>(first) % kHugePage;
    data_ = first + before;
    if (before) munmap(first, before);
    munmap(data_ + end, kHugePage - before);
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes, MADV_HUGEPAGE);  // refused: small pages, which are right as well
#endif
  }
  ~HugeMemory() { munmap(data_, page_end(bytes_)); }
  HugeMemory(const HugeMemory&) = delete;
  HugeMemory& operator=(const HugeMemory&) = delete;

  uint8_t* data() { return data_; }

 private:
  // Whole pages of any size that systems have (4, 16 or 64 KiB).
  static std::size_t page_end(std::size_t bytes) { return (bytes + 65535) / 65536 * 65536; }

  uint8_t* data_ = nullptr;
  std::size_t bytes_;
};

}  // namespace bitinfer
