// What the ops of one forward step share: the kernels in use, the threads, and scratch memory per
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "dispatch/dispatch.h"
#include "kernels/kernel_table.h"
#include "util/aligned_buffer.h"

namespace bitinfer {

// Scratch of one thread, allocated before the first forward step.
struct ThreadScratch {
  AlignedBuffer<uint8_t> gemm;    // kGemmScratchBytes
  AlignedBuffer<int32_t> acc;     // integer sums of one task
  AlignedBuffer<float> row;       // float results of one task, and rows of attention
  AlignedBuffer<uint8_t> tables;  // look-up tables of the rows at tables_codes
  int64_t tables_version = 0;     // QuantizedRows::version of them
  const int8_t* tables_codes = nullptr;
};

struct OpContext {
  const KernelTable* kernels;
  Packing packing;  // of every ternary matrix of the model
  GemvChoice gemv;  // for that packing
  int num_threads;
  std::vector<ThreadScratch>* scratch;  // (>= num_threads)

  // Threads worth waking for work that reads or computes on `bytes`; 32 KiB outlast the wake-up of
  // a spinning worker.
  int threads_for(int64_t bytes) const {
    const int64_t worth = 1 + bytes / (32 * 1024);
    return worth < num_threads ? static_cast<int>(worth) : num_threads;
  }
};

}  // namespace bitinfer
