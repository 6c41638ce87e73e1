#include "ops/read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "dispatch/dispatch.h"
#include "pack/format.h"
#include "threads/thread_pool.h"
#include "util/check.h"

namespace bitinfer {

double read_once(const uint8_t* data, int64_t bytes, int num_streams, int num_threads) {
  constexpr int64_t kPieceBytes =
      16 * 1024 * 1024;  // large enough for far streams, small enough to balance threads
  BITINFER_CHECK(num_streams >= 1 && num_streams <= kMaxStreams,
                 "streams: expected 1 to " << kMaxStreams << ", got " << num_streams);
  BITINFER_CHECK(num_threads >= 1 && num_threads <= kMaxThreads,
                 "threads: expected 1 to " << kMaxThreads << ", got " << num_threads);
  const int64_t unit = 64 * num_streams;
  const int64_t piece =
      round_up(std::min(kPieceBytes, std::max<int64_t>(ceil_div(bytes, num_threads), 1)), unit);
  const ReadStreamsFn read = active_table().read_streams;
  std::atomic<uint32_t> checksum{0};
  const auto start = std::chrono::steady_clock::now();
  parallel_for(num_threads, 0, bytes, piece, [&](int64_t begin, int64_t end, int) {
    const int64_t whole = (end - begin) / unit * unit;
    if (whole)
      checksum.fetch_add(read(data + begin, whole, num_streams), std::memory_order_relaxed);
  });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace bitinfer
