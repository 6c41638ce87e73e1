// The thread pool: every index once, callers that queue, forks. Meant to run under TSan and ASan as
// well.
#include "threads/thread_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <limits>
#include <thread>
#include <vector>

#include "expect.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace {

using bitinfer::parallel_for;

// Plain ints, no atomics: TSan sees it if two threads ever get the same index, or if a result is
// read too early.
void every_index_runs_once() {
  for (const int threads : {1, 2, 3, 7, 32}) {
    for (const int64_t count : {0, 1, 2, 31, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<int> runs(static_cast<std::size_t>(count), 0);
        std::atomic<int> bad_chunks{0};
        parallel_for(threads, 10, 10 + count, grain, [&](int64_t begin, int64_t end, int thread) {
          if (begin >= end || end - begin > grain || thread < 0 || thread >= threads) ++bad_chunks;
          for (int64_t i = begin; i < end; ++i) ++runs[static_cast<std::size_t>(i - 10)];
        });
        EXPECT(bad_chunks == 0, "%d threads, grain %d", threads, static_cast<int>(grain));
        for (const int n : runs) EXPECT(n == 1, "an index ran %d times on %d threads", n, threads);
      }
    }
  }
}

// Chunks of a share are halves of what is left of it, within the bounds; what is less than the
// least is the end of a share.
void chunks_grow_shorter_within_bounds() {
  for (const int threads : {1, 2, 7}) {
    for (const bitinfer::Chunks chunks :
         {bitinfer::Chunks{1, 1000}, {3, 1000}, {8, 64}, {5, 5}, {0, 0}, {9, 2}}) {
      const int64_t least = std::max<int64_t>(chunks.least, 1), most = std::max(chunks.most, least);
      std::vector<int> runs(1000, 0);
      std::vector<int64_t> longest(static_cast<std::size_t>(threads), 0);  // of each thread
      std::atomic<int> short_chunks{0}, long_chunks{0};
      parallel_for(threads, 0, 1000, chunks, [&](int64_t begin, int64_t end, int thread) {
        if (end - begin < least) ++short_chunks;
        if (end - begin > most) ++long_chunks;
        int64_t& own = longest[static_cast<std::size_t>(thread)];
        own = std::max(own, end - begin);
        for (int64_t i = begin; i < end; ++i) ++runs[static_cast<std::size_t>(i)];
      });
      for (const int n : runs) EXPECT(n == 1, "an index ran %d times on %d threads", n, threads);
      EXPECT(long_chunks == 0, "%d chunks above %d", long_chunks.load(), static_cast<int>(most));
      EXPECT(short_chunks <= threads, "%d chunks below %d", short_chunks.load(),
             static_cast<int>(least));
      const int64_t begins = threads == 1 ? 1000 : 1000 / threads / 2;  // with, who ever takes it
      const int64_t found = *std::max_element(longest.begin(), longest.end());
      EXPECT(found >= std::min(begins - least, most), "chunks of %d", static_cast<int>(found));
    }
  }
}

// Job after job on the same memory, each needing the whole of the one before, with pauses that park
// the workers.
void results_of_one_job_are_seen_by_the_next() {
  std::vector<int64_t> values(257, 1);
  std::vector<int64_t> next(values.size());
  for (int round = 0; round < 2000; ++round) {
    parallel_for(4, 0, 257, 5, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        next[static_cast<std::size_t>(i)] = values[static_cast<std::size_t>(256 - i)] + 1;
      }
    });
    values.swap(next);
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (const int64_t v : values) EXPECT(v == 2001, "a value of %d", static_cast<int>(v));
}

// A core so slow that it is still in its first chunk when all others are done: the other threads
// must have taken its share. Counted, not timed; were a share kept for its thread, this would never
// end.
void a_slow_core_holds_nobody_back() {
  constexpr int kChunks = 64;
  for (const int threads : {2, 4}) {
    for (const int slow : {0, 1}) {
      std::atomic<int> done{0}, of_slow{0};
      parallel_for(threads, 0, kChunks, 1, [&](int64_t, int64_t, int thread) {
        if (thread == slow && ++of_slow == 1) {
          while (done < kChunks - 1) std::this_thread::yield();
        }
        ++done;
      });
      EXPECT(done == kChunks, "%d chunks", done.load());
      EXPECT(of_slow <= 1, "the slow thread %d ran %d chunks", slow, of_slow.load());
    }
  }
}

void concurrent_callers_queue() {
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(4, 0);
  for (std::size_t c = 0; c < sums.size(); ++c) {
    callers.emplace_back([&sums, c] {
      for (int round = 0; round < 200; ++round) {
        int64_t part[3] = {0, 0, 0};
        parallel_for(3, 0, 100, 7,
                     [&](int64_t begin, int64_t end, int thread) { part[thread] += end - begin; });
        sums[c] += part[0] + part[1] + part[2];
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const int64_t sum : sums) EXPECT(sum == 20000, "%d indices", static_cast<int>(sum));
}

// Subnormals are neither flushed nor read as zero in a chunk, and the caller's own mode is given
// back.
void chunks_keep_subnormals() {
#if defined(__SSE2__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zero
  std::atomic<int> flushed{0};
  parallel_for(4, 0, 64, 1, [&](int64_t, int64_t, int) {
    volatile float tiny = std::numeric_limits<float>::min();
    volatile float half = tiny * 0.5f;
    if (half == 0.0f) ++flushed;
  });
  EXPECT((_mm_getcsr() & 0x8040) == 0x8040, "the caller's mode is kept");
  _mm_setcsr(before);
  EXPECT(flushed == 0, "%d chunks flushed subnormals", flushed.load());
#endif
}

#if !defined(__SANITIZE_THREAD__)  // TSan does not follow a process of several threads through fork
void a_forked_child_has_a_pool_of_its_own() {
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int64_t> sum{0};
    parallel_for(3, 0, 1000, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
    _exit(sum == 499500 ? 0 : 1);
  }
  int status = -1;
  EXPECT(waitpid(child, &status, 0) == child && status == 0, "status of the child %d", status);
}
#endif

}  // namespace

int main() {
  every_index_runs_once();
  chunks_grow_shorter_within_bounds();
  results_of_one_job_are_seen_by_the_next();
  a_slow_core_holds_nobody_back();
  concurrent_callers_queue();
  chunks_keep_subnormals();
#if !defined(__SANITIZE_THREAD__)
  a_forked_child_has_a_pool_of_its_own();
#endif
  return 0;
}
