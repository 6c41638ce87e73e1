// A row's kernels against the scalar row's on random inputs: milliseconds, run once before a row is
// used.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"

namespace bitinfer {

// Empty when every kernel of `row` gives the bits of `oracle`, else the first difference.
std::string compare_kernels(const KernelTable& row, const KernelTable& oracle);
std::string compare_float_kernels(const FloatKernels& row, const FloatKernels& oracle);

struct Candidate {
  std::string name;
  const KernelTable* table;
};

struct Settled {
  std::size_t index;  // of the candidate to use
  std::string note;   // which failed and why; empty when the first one passed
};

// The first candidate whose kernels agree with those of the last one, which is right by definition.
// candidates: best first, at least one.
Settled step_down(const std::vector<Candidate>& candidates);

}  // namespace bitinfer
