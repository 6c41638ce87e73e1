// Memory between two unreadable pages: a kernel that strays by one byte on the guarded side faults.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace bitinfer_test {

// Where a buffer lies in its mapping: its first byte behind the lower guard, or its last byte
// before the upper one.
enum class Placement { kFlushStart, kFlushEnd };

// One mapping, used again for buffers of different sizes.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(int64_t max_bytes) {
    const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (max_bytes + page - 1) / page * page;
    mapped_ = bytes_ + 2 * page;
    void* map = mmap(nullptr, static_cast<std::size_t>(mapped_), PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) fail("mmap");
    begin_ = static_cast<uint8_t*>(map) + page;
    if (bytes_ > 0 &&
        mprotect(begin_, static_cast<std::size_t>(bytes_), PROT_READ | PROT_WRITE) != 0)
      fail("mprotect");
    map_ = map;
  }
  ~GuardedBuffer() { munmap(map_, static_cast<std::size_t>(mapped_)); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  // `bytes` of uninitialised memory, `shift` bytes away from the guard; valid until the next call.
  uint8_t* place(int64_t bytes, Placement placement, int64_t shift = 0) {
    if (bytes + shift > bytes_) fail("a buffer larger than its mapping");
    return placement == Placement::kFlushStart ? begin_ + shift : begin_ + bytes_ - bytes - shift;
  }

 private:
  [[noreturn]] static void fail(const char* what) {
    std::perror(what);
    std::exit(1);
  }

  void* map_ = nullptr;
  uint8_t* begin_ = nullptr;
  int64_t bytes_ = 0;
  int64_t mapped_ = 0;
};

}  // namespace bitinfer_test
