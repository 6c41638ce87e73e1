// The search for codes that encode nothing and for weights in the padding: a fast pass over all
// tiles, then the exact place in the first bad one.
#include <algorithm>
#include <atomic>
#include <limits>

#include "pack/pack.h"
#include "pack/tile_codec.h"
#include "threads/thread_pool.h"
#include "util/atomic_min.h"
#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();

// The bits that hold row r, column c of a block, with their neighbours of the same unit: a code of
// i2, a magnitude and a sign of t3 and t5, a bit of b1.
struct Unit {
  int64_t byte;  // of the code or the magnitude, in the block
  int magnitude;
  bool negative;
  int64_t trit;  // which of the unit's trits column c is, most significant first
};

Unit unit_at(Packing packing, const uint8_t* block, int64_t r, int64_t c) {
  if (packing == Packing::kI2) {
    return {c % 64, (block[c % 64] >> (2 * (c / 64))) & 3, false, 0};
  }
  if (packing == Packing::kB1) return {r, (block[r] >> c) & 1, false, 0};
  if (packing == Packing::kT5) return {r, block[r] & 127, (block[r] & 128) != 0, c};
  const int64_t j = c / 3;
  const int64_t byte = 32 * (j / 2) + r;
  return {byte, (block[byte] >> (4 * (j % 2))) & 15, (block[128 + r] >> (7 - j) & 1) != 0, c % 3};
}

// What is wrong with a unit; null if nothing.
const char* fault_of(Packing packing, const Unit& unit) {
  if (packing == Packing::kB1) return nullptr;
  if (packing == Packing::kI2) return unit.magnitude == 3 ? "code 3" : nullptr;
  if (unit.magnitude == 0 && unit.negative) return "negative zero";
  if (packing == Packing::kT3) return unit.magnitude > 13 ? "magnitude above 13" : nullptr;
  return unit.magnitude > 121 ? "magnitude above 121" : nullptr;
}

// What padding holds: weight 0, or bit 0 of b1.
bool is_padding(Packing packing, const Unit& unit) {
  if (packing == Packing::kB1) return unit.magnitude == 0;
  if (packing == Packing::kI2) return unit.magnitude == 1;
  int v = unit.magnitude;  // the sign does not matter
  for (int64_t i = packing == Packing::kT3 ? 2 : 4; i > unit.trit; --i) v = (v + 1) / 3;
  return v % 3 == 0;
}

struct BadCode {
  int64_t row, col;  // may lie in the padding
  int64_t byte;
  const char* what;
};

// First fault of the tile in (row, column) order. Slow; only for tiles known to be bad.
BadCode find_in_tile(const PackedTernary& w, int64_t tile) {
  const PackedLayout& l = layout(w.packing);
  const int64_t first_byte = tile * tile_bytes(w.packing, w.k);
  for (int64_t r = 0; r < l.tile_rows; ++r) {
    for (int64_t b = 0; b < num_blocks(w.packing, w.k); ++b) {
      const int64_t at = first_byte + b * l.block_bytes;
      for (int64_t c = 0; c < l.block_k; ++c) {
        const Unit unit = unit_at(w.packing, w.data + at, r, c);
        const int64_t row = tile * l.tile_rows + r;
        const int64_t col = b * l.block_k + c;
        const char* what = fault_of(w.packing, unit);
        const bool padding = row >= w.n || col >= w.k;
        if (!what && padding && !is_padding(w.packing, unit)) what = "weight in the padding";
        if (what) return {row, col, at + unit.byte, what};
      }
    }
  }
  return {tile * l.tile_rows, 0, first_byte, "a code that changed while it was read"};
}

// True where the tile's padding columns, or rows from N on, hold a weight.
bool padding_is_used(const PackedTernary& w, int64_t tile) {
  const PackedLayout& l = layout(w.packing);
  const int64_t blocks = num_blocks(w.packing, w.k);
  const uint8_t* data = w.data + tile * tile_bytes(w.packing, w.k);
  const int64_t rows_used = std::min(l.tile_rows, w.n - tile * l.tile_rows);
  const int64_t first =
      rows_used < l.tile_rows ? 0 : blocks - 1;  // all blocks only for a last, partly filled tile
  for (int64_t b = first; b < blocks; ++b) {
    const int64_t cols_used = std::min(l.block_k, w.k - b * l.block_k);
    for (int64_t r = 0; r < l.tile_rows; ++r) {
      for (int64_t c = r < rows_used ? cols_used : 0; c < l.block_k; ++c) {
        if (!is_padding(w.packing, unit_at(w.packing, data + b * l.block_bytes, r, c))) return true;
      }
    }
  }
  return false;
}

bool tile_is_bad(const PackedTernary& w, int64_t tile) {
  const PackedLayout& l = layout(w.packing);
  const int64_t blocks = num_blocks(w.packing, w.k);
  const uint8_t* data = w.data + tile * tile_bytes(w.packing, w.k);
  codec::Bytes bad{};
  for (int64_t b = 0; b < blocks; ++b) bad |= codec::faults(w.packing, data + b * l.block_bytes);
  const bool whole = w.k % l.block_k == 0 && (tile + 1) * l.tile_rows <= w.n;
  return codec::any(bad) || (!whole && padding_is_used(w, tile));
}

}  // namespace

void validate_packed(const PackedTernary& w, int num_threads) {
  check_packed_shape(w.n, w.k);
  const int64_t tiles = num_tiles(w.packing, w.n);
  const int64_t bytes_per_tile = tile_bytes(w.packing, w.k);
  std::atomic<int64_t> bad_tile{kNowhere};
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / bytes_per_tile);
  parallel_for(resolve_num_threads(num_threads), 0, tiles, grain,
               [&](int64_t begin, int64_t end, int) {
                 for (int64_t tile = begin; tile < end; ++tile) {
                   if (tile_is_bad(w, tile)) return take_min(bad_tile, tile);
                 }
               });
  if (bad_tile != kNowhere) {
    const BadCode bad = find_in_tile(w, bad_tile);
    BITINFER_CHECK(false, "packed " << layout(w.packing).name << " (" << w.n << ", " << w.k
                                    << "): " << bad.what << " at row " << bad.row << ", column "
                                    << bad.col << " (byte " << bad.byte << ")");
  }
  for (int64_t i = tiles * bytes_per_tile; i < packed_bytes(w.packing, w.n, w.k); ++i) {
    BITINFER_CHECK(w.data[i] == 0, "packed " << layout(w.packing).name << " (" << w.n << ", " << w.k
                                             << "): expected a tail of zero bytes, got "
                                             << int{w.data[i]} << " at byte " << i);
  }
}

}  // namespace bitinfer
