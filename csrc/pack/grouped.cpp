#include "pack/grouped.h"

#include <sstream>
#include <stdexcept>
#include <vector>

#include "pack/pack.h"
#include "util/check.h"

namespace bitinfer {
namespace {

// fn(part, first column) for each part; its errors say which one it is.
template <typename Fn>
void for_parts(const GroupedTernary& w, const Fn& fn) {
  check_packed_shape(w.n, w.k);
  check_group(w.packing, w.k, w.group);
  const int64_t parts = num_parts(w.packing, w.k, w.group);
  for (int64_t i = 0; i < parts; ++i) {
    const PackedTernary part = part_of(w, i);
    const int64_t first = i * part_columns(w.packing, w.k, w.group);
    try {
      fn(part, first);
    } catch (const std::invalid_argument& error) {
      if (parts == 1) throw;
      std::ostringstream text;
      text << "columns " << first << " to " << first + part.k - 1 << ": " << error.what();
      throw std::invalid_argument(text.str());
    }
  }
}

}  // namespace

void check_group(Packing packing, int64_t k, int64_t group) {
  BITINFER_CHECK(group >= 1 && group <= k,
                 "group: expected 1 to " << k << " columns, got " << group);
  BITINFER_CHECK(packing != Packing::kT3 || group == k,
                 "packing: expected i2 or t5 for groups of " << group << " columns, got t3");
}

void pack_grouped(const int8_t* weights, int64_t n, int64_t k, Packing packing, int64_t group,
                  uint8_t* packed, int num_threads) {
  for_parts({packing, n, k, group, packed}, [&](const PackedTernary& part, int64_t first) {
    pack(weights + first, n, part.k, packing, packed + (part.data - packed), num_threads, k);
  });
}

void unpack_grouped(const GroupedTernary& w, int8_t* weights, int num_threads) {
  for_parts(w, [&](const PackedTernary& part, int64_t first) {
    unpack(part, weights + first, num_threads, w.k);
  });
}

void repack_grouped(const GroupedTernary& w, Packing to, uint8_t* out, int num_threads) {
  check_group(to, w.k, w.group);
  if (num_parts(w.packing, w.k, w.group) == 1 && num_parts(to, w.k, w.group) == 1)
    return repack({w.packing, w.n, w.k, w.data}, to, out, num_threads);
  std::vector<int8_t> weights(static_cast<std::size_t>(w.n * w.k));
  unpack_grouped(w, weights.data(), num_threads);
  pack_grouped(weights.data(), w.n, w.k, to, w.group, out, num_threads);
}

void validate_grouped(const GroupedTernary& w, int num_threads) {
  for_parts(w, [&](const PackedTernary& part, int64_t) { validate_packed(part, num_threads); });
}

}  // namespace bitinfer
