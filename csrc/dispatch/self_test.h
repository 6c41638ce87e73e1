// A row's kernels against the scalar row's on random tiles: milliseconds, run once before a row is
// used.
#pragma once

#include <string>

#include "kernels/kernel_table.h"

namespace bitinfer {

// Empty when every integer kernel of `row` gives the sums of `scalar`, else the first difference.
std::string compare_kernels(const KernelTable& row, const KernelTable& scalar);

}  // namespace bitinfer
