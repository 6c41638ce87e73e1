// Float matrices whose values are w * s already, w in {-1, 0, 1}: which s, and back to w.
//
// The magnitudes are compared as bits of the stored type, so nothing is rounded and nothing is near
// enough.
#pragma once

#include <cstdint>

#include "pack/checkpoint.h"

namespace bitinfer {

// The magnitude that all weights of a row but its zeros have within each group of `group` columns
// (the last may be shorter): magnitudes (ceil(K / group), N) of the stored type, finite; 0 where a
// group is all zero. Returns -1, or row * K + column of the first weight of another magnitude; the
// magnitudes are then incomplete.
int64_t group_magnitudes(const FloatMatrix& w, int64_t group, uint8_t* magnitudes, int num_threads);

// codes (N, K): the sign of each weight, 0 of both zeros.
void signs(const FloatMatrix& w, int8_t* codes, int num_threads);

}  // namespace bitinfer
