// The arithmetic roofline: int8 products per second without any memory.
#pragma once

#include "kernels/kernel_table.h"

namespace bitinfer {

// The row's rate with so many threads, over a few milliseconds; 0 where the row tells none.
double multiply_peak(const KernelTable& table, int num_threads);

}  // namespace bitinfer
