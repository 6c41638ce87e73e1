// Ternary matrices (N, K) whose columns are in groups with weight scales of their own: a stack of
// ordinary packed matrices, one for each part of the columns, one after the other.
//
// A part is a group; where a K-block is wider than that (i2), as many whole groups as it holds.
// The last group and the last part may be narrower. A kernel that is to sum one of several groups
// of a part is run on activations that are zero in the others.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pack/format.h"

namespace bitinfer {

// The caller keeps `data` alive: grouped_bytes, 64-byte aligned. group: columns, 1..K.
struct GroupedTernary {
  Packing packing;
  int64_t n;
  int64_t k;
  int64_t group;
  const uint8_t* data;
};

constexpr int64_t num_groups(int64_t k, int64_t group) { return ceil_div(k, group); }
constexpr int64_t groups_of_part(Packing p, int64_t group) {
  return group < layout(p).block_k ? layout(p).block_k / group : 1;
}
constexpr int64_t part_columns(Packing p, int64_t k, int64_t group) {
  return std::min(k, groups_of_part(p, group) * group);
}
constexpr int64_t num_parts(Packing p, int64_t k, int64_t group) {
  return ceil_div(k, part_columns(p, k, group));
}

// Part `index` as a matrix of its own.
constexpr PackedTernary part_of(const GroupedTernary& w, int64_t index) {
  const int64_t columns = part_columns(w.packing, w.k, w.group), first = index * columns;
  return {w.packing, w.n, std::min(columns, w.k - first),
          w.data + index * packed_bytes(w.packing, w.n, columns)};
}

constexpr int64_t grouped_bytes(Packing p, int64_t n, int64_t k, int64_t group) {
  const int64_t columns = part_columns(p, k, group), whole = k / columns, rest = k % columns;
  return whole * packed_bytes(p, n, columns) + (rest ? packed_bytes(p, n, rest) : 0);
}

// 1 <= group <= K; K itself for t3, whose blocks would be filled badly.
void check_group(Packing packing, int64_t k, int64_t group);

// As the functions of pack.h, which one group of all columns comes down to; errors name the part.
void pack_grouped(const int8_t* weights, int64_t n, int64_t k, Packing packing, int64_t group,
                  uint8_t* packed, int num_threads);
void unpack_grouped(const GroupedTernary& w, int8_t* weights, int num_threads);
void repack_grouped(const GroupedTernary& w, Packing to, uint8_t* out, int num_threads);
void validate_grouped(const GroupedTernary& w, int num_threads);

}  // namespace bitinfer
