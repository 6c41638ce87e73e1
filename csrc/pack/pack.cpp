// Piece-wise packing and unpacking, and the search for impossible codes.
#include "pack/pack.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <thread>

#include "pack/tile_codec.h"
#include "threads/thread_pool.h"
#include "util/aligned_buffer.h"
#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();

void take_min(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load();
  while (value < seen && !least.compare_exchange_weak(seen, value)) {
  }
}

// Runs fn(row, num_rows, piece) over all groups of 64 rows; piece: (64, kPieceStride) int8 of the
// running thread.
template <typename Fn>
void for_row_groups(int64_t n, int num_threads, const Fn& fn) {
  const int threads = resolve_num_threads(num_threads);
  const int64_t piece_bytes = kPieceRows * kPieceStride;
  AlignedBuffer<int8_t> pieces(static_cast<std::size_t>(threads * piece_bytes));
  parallel_for(threads, 0, ceil_div(n, kPieceRows), 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t group = begin; group < end; ++group) {
      fn(group * kPieceRows, std::min(kPieceRows, n - group * kPieceRows),
         pieces.data() + thread * piece_bytes);
    }
  });
}

// fn(block, w) over the blocks of the tiles that hold rows [row, row + num_rows), columns [col, col
// + kPieceCols).
template <typename Byte, typename Fn>
void for_piece_blocks(Packing packing, int64_t k, Byte* packed, int64_t row, int64_t num_rows,
                      int64_t col, const Fn& fn) {
  const PackedLayout& l = layout(packing);
  const int64_t first_block = col / l.block_k;
  const int64_t blocks = std::min(num_blocks(packing, k) - first_block, kPieceCols / l.block_k);
  for (int64_t r = 0; r < num_rows; r += l.tile_rows) {
    Byte* tile = packed + (row + r) / l.tile_rows * tile_bytes(packing, k);
    for (int64_t b = 0; b < blocks; ++b)
      fn(tile + (first_block + b) * l.block_bytes, r * kPieceStride + b * l.block_k);
  }
}

void encode_piece(Packing packing, int64_t k, const int8_t* piece, int64_t row, int64_t num_rows,
                  int64_t col, uint8_t* packed) {
  for_piece_blocks(packing, k, packed, row, num_rows, col, [&](uint8_t* block, int64_t at) {
    codec::encode_block(packing, piece + at, kPieceStride, block);
  });
}

void decode_piece(const PackedTernary& w, int64_t row, int64_t num_rows, int64_t col,
                  int8_t* piece) {
  for_piece_blocks(w.packing, w.k, w.data, row, num_rows, col,
                   [&](const uint8_t* block, int64_t at) {
                     codec::decode_block(w.packing, block, piece + at, kPieceStride);
                   });
}

// ---- the search for impossible codes ----

struct BadCode {
  int64_t row, col;  // may lie in the padding
  const char* what;
};

// What is wrong with column `col` of row `r` of a decoded block, as its unit of packed bits says;
// null if nothing.
const char* unit_fault(Packing packing, const uint8_t* block, int64_t r, int64_t col) {
  if (packing == Packing::kI2)
    return ((block[col % 64] >> (2 * (col / 64))) & 3) == 3 ? "code 3" : nullptr;
  if (packing == Packing::kT5) {
    if ((block[r] & 127) > 121) return "magnitude above 121";
    return block[r] == 128 ? "negative zero" : nullptr;
  }
  const int64_t j = col / 3;
  const int magnitude = (block[32 * (j / 2) + r] >> (4 * (j % 2))) & 15;
  if (magnitude > 13) return "magnitude above 13";
  return magnitude == 0 && (block[128 + r] >> (7 - j) & 1) ? "negative zero" : nullptr;
}

// First fault of the tile in (row, column) order. Slow; only for tiles known to be bad.
BadCode find_in_tile(const PackedTernary& w, int64_t tile) {
  const PackedLayout& l = layout(w.packing);
  const uint8_t* data = w.data + tile * tile_bytes(w.packing, w.k);
  AlignedBuffer<int8_t> block(
      static_cast<std::size_t>(l.tile_rows * l.block_k + codec::kCodecSlack));
  for (int64_t r = 0; r < l.tile_rows; ++r) {
    for (int64_t b = 0; b < num_blocks(w.packing, w.k); ++b) {
      const uint8_t* bytes = data + b * l.block_bytes;
      codec::decode_block(w.packing, bytes, block.data(), l.block_k);
      for (int64_t c = 0; c < l.block_k; ++c) {
        const int64_t row = tile * l.tile_rows + r;
        const int64_t col = b * l.block_k + c;
        if (const char* what = unit_fault(w.packing, bytes, r, c)) return {row, col, what};
        const bool padding = row >= w.n || col >= w.k;
        if (padding && block[static_cast<std::size_t>(r * l.block_k + c)])
          return {row, col, "weight in the padding"};
      }
    }
  }
  return {-1, -1, nullptr};
}

// True where the tile's padding columns, or rows from N on, hold a weight.
bool padding_is_used(const PackedTernary& w, int64_t tile, int8_t* scratch) {
  const PackedLayout& l = layout(w.packing);
  const int64_t blocks = num_blocks(w.packing, w.k);
  const uint8_t* data = w.data + tile * tile_bytes(w.packing, w.k);
  const int64_t rows_used = std::min(l.tile_rows, w.n - tile * l.tile_rows);
  const int64_t first =
      rows_used < l.tile_rows ? 0 : blocks - 1;  // all blocks only for a last, partly filled tile
  for (int64_t b = first; b < blocks; ++b) {
    const int64_t cols_used = std::min(l.block_k, w.k - b * l.block_k);
    codec::decode_block(w.packing, data + b * l.block_bytes, scratch, l.block_k);
    for (int64_t r = 0; r < l.tile_rows; ++r) {
      for (int64_t c = r < rows_used ? cols_used : 0; c < l.block_k; ++c) {
        if (scratch[r * l.block_k + c]) return true;
      }
    }
  }
  return false;
}

bool tile_is_bad(const PackedTernary& w, int64_t tile, int8_t* scratch) {
  const PackedLayout& l = layout(w.packing);
  const int64_t blocks = num_blocks(w.packing, w.k);
  const uint8_t* data = w.data + tile * tile_bytes(w.packing, w.k);
  bool bad = false;
  for (int64_t b = 0; b < blocks; ++b) bad |= codec::bad_block(w.packing, data + b * l.block_bytes);
  const bool whole = w.k % l.block_k == 0 && (tile + 1) * l.tile_rows <= w.n;
  return bad || (!whole && padding_is_used(w, tile, scratch));
}

int64_t byte_of(const PackedTernary& w, int64_t row, int64_t col) {
  const PackedLayout& l = layout(w.packing);
  const int64_t r = row % l.tile_rows;
  const int64_t c = col % l.block_k;
  const int64_t in_block = w.packing == Packing::kI2   ? c % 64
                           : w.packing == Packing::kT3 ? 32 * (c / 6) + r
                                                       : r;
  return row / l.tile_rows * tile_bytes(w.packing, w.k) + col / l.block_k * l.block_bytes +
         in_block;
}

}  // namespace

Packing packing_from_name(const std::string& name) {
  for (int p = 0; p < kNumPackings; ++p) {
    if (name == kLayouts[p].name) return static_cast<Packing>(p);
  }
  BITINFER_CHECK(false, "packing: expected one of i2, t3, t5, got " << name);
  return Packing::kI2;
}

void check_packed_shape(int64_t n, int64_t k) {
  BITINFER_CHECK(n >= 1 && n < (int64_t{1} << 31), "n: expected 1 to 2^31 - 1 rows, got " << n);
  BITINFER_CHECK(k >= 1 && k < (int64_t{1} << 23), "k: expected 1 to 2^23 - 1 columns, got " << k);
}

int resolve_num_threads(int num_threads) {
  if (num_threads == 0)
    num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  BITINFER_CHECK(num_threads >= 1, "num_threads: expected 0 (all) or more, got " << num_threads);
  return std::min(num_threads, kMaxThreads);
}

void pack_pieces(const PieceSource& source, int64_t n, int64_t k, Packing packing, uint8_t* packed,
                 int num_threads) {
  check_packed_shape(n, k);
  for_row_groups(n, num_threads, [&](int64_t row, int64_t num_rows, int8_t* piece) {
    for (int64_t col = 0; col < k; col += kPieceCols) {
      const int64_t num_cols = std::min(kPieceCols, k - col);
      if (num_rows < kPieceRows || num_cols < kPieceCols)
        std::memset(piece, 0, kPieceRows * kPieceStride);
      source(row, num_rows, col, num_cols, piece);
      encode_piece(packing, k, piece, row, num_rows, col, packed);
    }
  });
  const int64_t used = num_tiles(packing, n) * tile_bytes(packing, k);
  std::memset(packed + used, 0, static_cast<std::size_t>(packed_bytes(packing, n, k) - used));
}

void pack(const int8_t* weights, int64_t n, int64_t k, Packing packing, uint8_t* packed,
          int num_threads) {
  std::atomic<int64_t> bad{kNowhere};
  const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                          int8_t* piece) {
    for (int64_t r = 0; r < num_rows; ++r) {
      const int8_t* from = weights + (row + r) * k + col;
      int8_t* to = piece + r * kPieceStride;
      uint8_t most = 0;
      for (int64_t c = 0; c < num_cols; ++c) {
        most = std::max(most, static_cast<uint8_t>(from[c] + 1));  // code; a bad one is above 2
        to[c] = from[c];
      }
      if (most <= 2) continue;
      const int8_t* first =
          std::find_if(from, from + num_cols, [](int8_t w) { return w < -1 || w > 1; });
      take_min(bad, first - weights);
      std::memset(to, 0, static_cast<std::size_t>(num_cols));
    }
  };
  pack_pieces(source, n, k, packing, packed, num_threads);
  const int64_t at = bad;
  BITINFER_CHECK(at == kNowhere, "weights: expected -1, 0 or 1, got "
                                     << int{weights[at]} << " at row " << at / k << ", column "
                                     << at % k);
}

void unpack(const PackedTernary& w, int8_t* weights, int num_threads) {
  validate_packed(w, num_threads);
  for_row_groups(w.n, num_threads, [&](int64_t row, int64_t num_rows, int8_t* piece) {
    for (int64_t col = 0; col < w.k; col += kPieceCols) {
      decode_piece(w, row, num_rows, col, piece);
      const auto num_cols = static_cast<std::size_t>(std::min(kPieceCols, w.k - col));
      for (int64_t r = 0; r < num_rows; ++r) {
        std::memcpy(weights + (row + r) * w.k + col, piece + r * kPieceStride, num_cols);
      }
    }
  });
}

void repack(const PackedTernary& w, Packing to, uint8_t* out, int num_threads) {
  validate_packed(w, num_threads);
  const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t, int8_t* piece) {
    decode_piece(w, row, num_rows, col, piece);
  };
  pack_pieces(source, w.n, w.k, to, out, num_threads);
}

void validate_packed(const PackedTernary& w, int num_threads) {
  check_packed_shape(w.n, w.k);
  const int64_t tiles = num_tiles(w.packing, w.n);
  const int64_t bytes_per_tile = tile_bytes(w.packing, w.k);
  std::atomic<int64_t> bad_tile{kNowhere};
  const int64_t grain = std::max<int64_t>(1, (1 << 18) / bytes_per_tile);
  parallel_for(
      resolve_num_threads(num_threads), 0, tiles, grain, [&](int64_t begin, int64_t end, int) {
        alignas(64) int8_t scratch[32 * 24 + codec::kCodecSlack];  // the largest block, decoded
        static_assert(sizeof(scratch) >= 64 * 5 + codec::kCodecSlack &&
                      sizeof(scratch) >= 256 + codec::kCodecSlack);
        for (int64_t tile = begin; tile < end; ++tile) {
          if (tile_is_bad(w, tile, scratch)) return take_min(bad_tile, tile);
        }
      });
  if (bad_tile != kNowhere) {
    const BadCode bad = find_in_tile(w, bad_tile);
    BITINFER_CHECK(false, "packed " << layout(w.packing).name << " (" << w.n << ", " << w.k
                                    << "): " << bad.what << " at row " << bad.row << ", column "
                                    << bad.col << " (byte " << byte_of(w, bad.row, bad.col) << ")");
  }
  for (int64_t i = tiles * bytes_per_tile; i < packed_bytes(w.packing, w.n, w.k); ++i) {
    BITINFER_CHECK(w.data[i] == 0, "packed " << layout(w.packing).name << " (" << w.n << ", " << w.k
                                             << "): expected a tail of zero bytes, got "
                                             << int{w.data[i]} << " at byte " << i);
  }
}

}  // namespace bitinfer
