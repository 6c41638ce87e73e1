// The least of what several threads report.
#pragma once

#include <atomic>
#include <cstdint>

namespace bitinfer {

inline void take_min(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load();
  while (value < seen && !least.compare_exchange_weak(seen, value)) {
  }
}

}  // namespace bitinfer
