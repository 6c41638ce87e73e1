// A mutex that a forked child finds unlocked, even if another thread of the parent held it at the
// fork.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace bitinfer {

// Number of forks between the first process and this one. Counted from the first use of the thread
// pool on.
uint32_t fork_generation();

// Meets the standard's Lockable requirements as far as std::lock_guard and std::unique_lock need
// them.
class ForkSafeMutex {
 public:
  ForkSafeMutex() : mutex_(new std::mutex), generation_(fork_generation()) {}
  ~ForkSafeMutex() {
    if (generation_.load() == fork_generation()) delete mutex_.load();
  }
  ForkSafeMutex(const ForkSafeMutex&) = delete;
  ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;

  void lock() {
    renew();
    mutex_.load()->lock();
  }
  void unlock() { mutex_.load()->unlock(); }

 private:
  // The parent's mutex is in an unknown state and is left behind. Only the first caller of a child
  // renews: others can exist only after it, and wait until the generation fits.
  void renew() {
    uint32_t seen = generation_.load();
    const uint32_t now = fork_generation();
    if (seen == now || seen == kRenewing + now) {
      while (generation_.load() != now) {
      }
      return;
    }
    if (generation_.compare_exchange_strong(seen, kRenewing + now)) {
      mutex_.store(new std::mutex);
      generation_.store(now);
    } else {
      while (generation_.load() != now) {
      }
    }
  }

  static constexpr uint32_t kRenewing = 0x80000000u;
  std::atomic<std::mutex*> mutex_;
  std::atomic<uint32_t> generation_;
};

}  // namespace bitinfer
