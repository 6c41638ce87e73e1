// The one persistent thread pool: the only threading of the native code.
//
// parallel_for cuts [begin, end) into chunks and gives the caller and each worker an even share of
// neighbouring ones; who has done its share takes from the others', so slow cores do not hold fast
// ones back. Workers spin briefly for the next job, then park. Results must not
// depend on which thread runs a chunk. One job at a time: concurrent callers queue on a mutex. Not
// reentrant. Every chunk runs in the default floating-point mode (round to nearest, subnormals
// kept), whatever the caller's is. A forked child starts with no workers and makes new ones when it
// needs them.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

namespace bitinfer {

constexpr int kMaxThreads = 256;

// How long the chunks of a job are: each takes half of what is left of its share, but no less than
// `least` and no more than `most`. Long ones have few ends, where a thread waits for memory; short
// ones at the end balance the threads. Equal: all chunks are of that length.
struct Chunks {
  int64_t least;
  int64_t most;
};

class ThreadPool {
 public:
  // fn(ctx, begin, end, thread) with end - begin <= most and thread in [0, num_threads).
  using ChunkFn = void (*)(void* ctx, int64_t begin, int64_t end, int thread);

  static ThreadPool& instance();

  // Runs fn over [begin, end) on up to num_threads threads, the caller being one; returns when all
  // is done. With one thread, or one chunk, it is a plain loop on the caller, by the most.
  void run(int num_threads, int64_t begin, int64_t end, Chunks chunks, ChunkFn fn, void* ctx);

 private:
  ThreadPool();
  struct Impl;
  Impl* impl_;  // never freed: parked workers outlive main()
};

// fn(begin, end, thread) must not throw: one that does ends the program, as the other threads still
// use it.
template <typename Fn>
void parallel_for(int num_threads, int64_t begin, int64_t end, Chunks chunks, Fn&& fn) {
  using F = std::remove_reference_t<Fn>;
  ThreadPool::instance().run(
      num_threads, begin, end, chunks,
      [](void* ctx, int64_t b, int64_t e, int thread) noexcept {
        (*static_cast<F*>(ctx))(b, e, thread);
      },
      const_cast<void*>(static_cast<const void*>(&fn)));
}

// The same in chunks of `grain`.
template <typename Fn>
void parallel_for(int num_threads, int64_t begin, int64_t end, int64_t grain, Fn&& fn) {
  parallel_for(num_threads, begin, end, Chunks{grain, grain}, std::forward<Fn>(fn));
}

}  // namespace bitinfer
