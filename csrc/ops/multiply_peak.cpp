#include "ops/multiply_peak.h"

#include <atomic>
#include <chrono>

#include "threads/thread_pool.h"
#include "util/check.h"

namespace bitinfer {

double multiply_peak(const KernelTable& table, int num_threads) {
  constexpr int64_t kSteps = 20000;  // some 50 us
  constexpr int64_t kPieces = 40;    // per thread
  BITINFER_CHECK(num_threads >= 1 && num_threads <= kMaxThreads,
                 "threads: expected 1 to " << kMaxThreads << ", got " << num_threads);
  if (!table.multiply_peak) return 0;
  std::atomic<int64_t> products{0};
  const auto start = std::chrono::steady_clock::now();
  parallel_for(num_threads, 0, kPieces * num_threads, 1, [&](int64_t, int64_t, int) {
    products.fetch_add(table.multiply_peak(kSteps), std::memory_order_relaxed);
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(products.load()) / seconds.count();
}

}  // namespace bitinfer
