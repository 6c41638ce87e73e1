// Tasks of several kinds as one job of parallel_for.
#pragma once

#include <cstdint>

namespace bitinfer {

struct DealtTask {
  int kind;
  int64_t index;  // within its kind
};

// Task `place` in an order that gives each thread's share of parallel_for its even part of every
// kind, neighbours one after the other. counts: tasks of each kind; 0 <= place < their sum.
inline DealtTask dealt_task(const int64_t* counts, int kinds, int64_t threads, int64_t place) {
  for (int64_t thread = 0;; ++thread) {
    for (int kind = 0; kind < kinds; ++kind) {
      const int64_t begin = thread * counts[kind] / threads;
      const int64_t own = (thread + 1) * counts[kind] / threads - begin;
      if (place < own) return {kind, begin + place};
      place -= own;
    }
  }
}

}  // namespace bitinfer
