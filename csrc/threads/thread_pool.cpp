// Workers, each with a slot of its own: the caller posts a job to a slot, the worker takes it or
// the caller revokes it, so a job never waits for a worker that has not begun.
#include "threads/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "threads/float_mode.h"
#include "threads/fork_safe_mutex.h"

namespace bitinfer {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(30);

void pause() {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Spins until done() or kSpinTime is over; returns done().
template <typename Done>
bool spin_until(Done done) {
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < kSpinTime);
  return done();
}

// Blocks a thread until a condition on an atomic holds; the thread that makes it hold calls wake()
// afterwards. Both sides store, then load what the other stores: with exchange, as qemu-aarch64
// lets the load of a plain seq_cst pair pass the store on x86, and a wake-up would be lost.
class Parking {
 public:
  template <typename Done>
  void wait(Done done) {
    if (spin_until(done)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    parked_.exchange(true);  // before done() is asked again: wake() sees it, or done() is true
    condition_.wait(lock, done);
    parked_.store(false);
  }
  void wake() {
    if (!parked_.load()) return;
    std::lock_guard<std::mutex> lock(mutex_);
    condition_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  std::atomic<bool> parked_{false};
};

enum SlotState : int { kIdle, kPosted, kRunning };

struct alignas(64) Slot {
  std::atomic<int> state{kIdle};
  Parking parking;
};

// Chunks that one thread is to run, in order: neighbours in memory stay with a thread, whose
// prefetches past the end of a chunk then serve its next one.
struct alignas(64) Share {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

std::atomic<uint32_t> g_fork_generation{0};

}  // namespace

uint32_t fork_generation() {
  ThreadPool::instance();  // registers the fork handler
  return g_fork_generation.load();
}

struct ThreadPool::Impl {
  std::mutex run_mutex;
  Parking done;  // where the caller waits for running workers
  int num_workers = 0;
  std::unique_ptr<Slot> slots[kMaxThreads];  // [1, num_workers]

  // The job; written by the caller while no slot is posted or running.
  ChunkFn fn = nullptr;
  void* ctx = nullptr;
  Chunks chunks{1, 1};
  int num_shares = 0;
  Share shares[kMaxThreads];

  // First the thread's own share, then what the others have not begun.
  void take_chunks(int thread) {
    for (int i = 0; i < num_shares; ++i) {
      Share& share = shares[(thread + i) % num_shares];
      int64_t from = share.next.load(std::memory_order_relaxed);
      while (from < share.end) {
        const int64_t left = share.end - from;
        const int64_t end = from + std::min(std::clamp(left / 2, chunks.least, chunks.most), left);
        if (!share.next.compare_exchange_weak(from, end, std::memory_order_relaxed)) continue;
        fn(ctx, from, end, thread);
        from = share.next.load(std::memory_order_relaxed);
      }
    }
  }

  // Shares of whole least chunks, as even as they come.
  void deal(int threads, int64_t begin, int64_t end) {
    const int64_t count = (end - begin + chunks.least - 1) / chunks.least;
    num_shares = threads;
    for (int i = 0; i < threads; ++i) {
      shares[i].next.store(begin + i * count / threads * chunks.least, std::memory_order_relaxed);
      shares[i].end = std::min(begin + (i + 1) * count / threads * chunks.least, end);
    }
  }

  void work(int thread) {
    FloatMode mode;
    Slot& slot = *slots[thread];
    for (;;) {
      slot.parking.wait([&] { return slot.state.load() == kPosted; });
      int expected = kPosted;
      if (!slot.state.compare_exchange_strong(expected, kRunning)) continue;  // revoked
      take_chunks(thread);
      slot.state.exchange(kIdle);
      done.wake();
    }
  }

  // As many workers as wanted, or as the system lets us have.
  int ensure_workers(int wanted) {
    while (num_workers < wanted) {
      const int thread = num_workers + 1;
      if (!slots[thread]) slots[thread] = std::make_unique<Slot>();
      try {
        std::thread([this, thread] { work(thread); }).detach();
      } catch (const std::system_error&) {
        break;
      }
      num_workers = thread;
    }
    return std::min(num_workers, wanted);
  }

  void run(int workers) {
    workers = ensure_workers(workers);
    for (int i = 1; i <= workers; ++i) {
      slots[i]->state.exchange(kPosted);
      slots[i]->parking.wake();
    }
    take_chunks(0);
    for (int i = 1; i <= workers; ++i) {
      Slot& slot = *slots[i];
      int expected = kPosted;
      if (slot.state.compare_exchange_strong(expected, kIdle))
        continue;  // never began: nothing to wait for
      done.wait([&] { return slot.state.load() == kIdle; });
    }
  }
};

ThreadPool::ThreadPool() : impl_(new Impl) {
  pthread_atfork(nullptr, nullptr, [] {
    g_fork_generation.fetch_add(1);
    instance().impl_ =
        new Impl;  // the parent's threads and locks are not ours; their memory is left behind
  });
}

ThreadPool& ThreadPool::instance() {
  static ThreadPool* pool = new ThreadPool;
  return *pool;
}

void ThreadPool::run(int num_threads, int64_t begin, int64_t end, Chunks chunks, ChunkFn fn,
                     void* ctx) {
  if (begin >= end) return;
  FloatMode mode;
  chunks.least = std::max<int64_t>(chunks.least, 1);
  chunks.most = std::max(chunks.most, chunks.least);
  const int64_t count = (end - begin + chunks.least - 1) / chunks.least;
  const int threads = static_cast<int>(std::min<int64_t>({num_threads, count, kMaxThreads}));
  if (threads <= 1) {
    for (int64_t from = begin; from < end; from += chunks.most)
      fn(ctx, from, std::min(from + chunks.most, end), 0);
    return;
  }
  Impl& impl = *impl_;
  std::lock_guard<std::mutex> lock(impl.run_mutex);
  impl.fn = fn;
  impl.ctx = ctx;
  impl.chunks = chunks;
  impl.deal(threads, begin, end);
  impl.run(threads - 1);
}

}  // namespace bitinfer
