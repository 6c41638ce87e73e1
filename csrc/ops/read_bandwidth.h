// The memory roofline: how fast the threads read a buffer with the kernels' own way of streaming.
#pragma once

#include <cstdint>

namespace bitinfer {

// Seconds that num_threads threads need to read `bytes` bytes once, each thread walking num_streams
// far-apart streams (up to 64 · num_streams bytes of every thread's last piece are left out).
// num_streams in 1..kMaxStreams.
double read_once(const uint8_t* data, int64_t bytes, int num_streams, int num_threads);

}  // namespace bitinfer
