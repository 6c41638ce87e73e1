// Piece-wise packing and unpacking.
#include "pack/pack.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "pack/tile_codec.h"
#include "threads/thread_pool.h"
#include "util/aligned_buffer.h"
#include "util/atomic_min.h"
#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();

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

// fn(block, r, c) over the blocks of rows [row, row + num_rows), columns [col, col + num_cols) that
// exist; (r, c) is the block's first weight, counted from (row, col).
template <typename Byte, typename Fn>
void for_blocks(Packing packing, int64_t k, Byte* packed, int64_t row, int64_t num_rows,
                int64_t col, int64_t num_cols, const Fn& fn) {
  const PackedLayout& l = layout(packing);
  const int64_t first_block = col / l.block_k;
  const int64_t blocks = std::min(num_blocks(packing, k) - first_block, num_cols / l.block_k);
  for (int64_t r = 0; r < num_rows; r += l.tile_rows) {
    Byte* tile = packed + (row + r) / l.tile_rows * tile_bytes(packing, k);
    for (int64_t b = 0; b < blocks; ++b)
      fn(tile + (first_block + b) * l.block_bytes, r, b * l.block_k);
  }
}

// A strip (tile_codec.h) of a matrix that is not i2.
struct Strip {
  alignas(64) int8_t columns[codec::kStripCols * codec::kStripRows];

  void encode(Packing packing, int64_t k, int64_t row, int64_t num_rows, int64_t col,
              uint8_t* packed) const {
    for_blocks(packing, k, packed, row, num_rows, col, codec::kStripCols,
               [&](uint8_t* block, int64_t r, int64_t c) {
                 codec::encode(packing, columns + c * codec::kStripRows + r, block);
               });
  }

  // Zero where no block is.
  void decode(const PackedTernary& w, int64_t row, int64_t num_rows, int64_t col) {
    if (num_rows < codec::kStripRows || w.k - col < codec::kStripCols)
      std::memset(columns, 0, sizeof(columns));
    for_blocks(w.packing, w.k, w.data, row, num_rows, col, codec::kStripCols,
               [&](const uint8_t* block, int64_t r, int64_t c) {
                 codec::decode(w.packing, block, columns + c * codec::kStripRows + r);
               });
    if (w.packing == Packing::kB1) clear_padding(num_rows, w.k - col);
  }

  // b1 has no zero weights to pad with.
  void clear_padding(int64_t num_rows, int64_t num_cols) {
    for (int64_t c = 0; c < codec::kStripCols; ++c) {
      const int64_t first = c < num_cols ? num_rows : 0;
      std::memset(columns + c * codec::kStripRows + first, 0,
                  static_cast<std::size_t>(codec::kStripRows - first));
    }
  }
};

void encode_piece(Packing packing, int64_t k, const int8_t* piece, int64_t row, int64_t num_rows,
                  int64_t col, uint8_t* packed) {
  if (packing == Packing::kI2) {
    return for_blocks(packing, k, packed, row, num_rows, col, kPieceCols,
                      [&](uint8_t* block, int64_t r, int64_t c) {
                        codec::encode_i2(piece + r * kPieceStride + c, block);
                      });
  }
  Strip strip;
  for (int64_t c = 0; c < std::min(kPieceCols, k - col); c += codec::kStripCols) {
    codec::rows_to_strip(piece + c, kPieceStride, strip.columns);
    strip.encode(packing, k, row, num_rows, col + c, packed);
  }
}

void decode_piece(const PackedTernary& w, int64_t row, int64_t num_rows, int64_t col,
                  int8_t* piece) {
  if (w.packing == Packing::kI2) {
    return for_blocks(w.packing, w.k, w.data, row, num_rows, col, kPieceCols,
                      [&](const uint8_t* block, int64_t r, int64_t c) {
                        codec::decode_i2(block, piece + r * kPieceStride + c);
                      });
  }
  Strip strip;
  for (int64_t c = 0; c < std::min(kPieceCols, w.k - col); c += codec::kStripCols) {
    strip.decode(w, row, num_rows, col + c);
    codec::strip_to_rows(strip.columns, piece + c, kPieceStride);
  }
}

// Notes the first weight 0 of a piece, which b1 cannot hold.
void find_zero(const int8_t* piece, int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
               int64_t k, std::atomic<int64_t>& zero) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const void* found =
        std::memchr(piece + r * kPieceStride, 0, static_cast<std::size_t>(num_cols));
    if (!found) continue;
    return take_min(
        zero, (row + r) * k + col + (static_cast<const int8_t*>(found) - piece - r * kPieceStride));
  }
}

void clear_tail(Packing packing, int64_t n, int64_t k, uint8_t* packed) {
  const int64_t used = num_tiles(packing, n) * tile_bytes(packing, k);
  std::memset(packed + used, 0, static_cast<std::size_t>(packed_bytes(packing, n, k) - used));
}

}  // namespace

Packing packing_from_name(const std::string& name) {
  for (int p = 0; p < kNumPackings; ++p) {
    if (name == kLayouts[p].name) return static_cast<Packing>(p);
  }
  BITINFER_CHECK(false, "packing: expected one of i2, t3, t5, b1, got " << name);
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
  std::atomic<int64_t> zero{kNowhere};
  for_row_groups(n, num_threads, [&](int64_t row, int64_t num_rows, int8_t* piece) {
    for (int64_t col = 0; col < k; col += kPieceCols) {
      const int64_t num_cols = std::min(kPieceCols, k - col);
      if (num_rows < kPieceRows || num_cols < kPieceCols)
        std::memset(piece, 0, kPieceRows * kPieceStride);
      source(row, num_rows, col, num_cols, piece);
      if (packing == Packing::kB1) find_zero(piece, row, num_rows, col, num_cols, k, zero);
      encode_piece(packing, k, piece, row, num_rows, col, packed);
    }
  });
  const int64_t at = zero;
  BITINFER_CHECK(at == kNowhere,
                 "b1: expected weights -1 or 1, got 0 at row " << at / k << ", column " << at % k);
  clear_tail(packing, n, k, packed);
}

void pack(const int8_t* weights, int64_t n, int64_t k, Packing packing, uint8_t* packed,
          int num_threads, int64_t stride) {
  if (stride == 0) stride = k;
  std::atomic<int64_t> bad{kNowhere};
  const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                          int8_t* piece) {
    for (int64_t r = 0; r < num_rows; ++r) {
      const int8_t* from = weights + (row + r) * stride + col;
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
      std::memset(to, 1, static_cast<std::size_t>(num_cols));
    }
  };
  pack_pieces(source, n, k, packing, packed, num_threads);
  const int64_t at = bad;
  BITINFER_CHECK(at == kNowhere, "weights: expected -1, 0 or 1, got "
                                     << int{weights[at]} << " at row " << at / stride << ", column "
                                     << at % stride);
}

void unpack(const PackedTernary& w, int8_t* weights, int num_threads, int64_t stride) {
  if (stride == 0) stride = w.k;
  validate_packed(w, num_threads);
  for_row_groups(w.n, num_threads, [&](int64_t row, int64_t num_rows, int8_t* piece) {
    for (int64_t col = 0; col < w.k; col += kPieceCols) {
      decode_piece(w, row, num_rows, col, piece);
      const auto num_cols = static_cast<std::size_t>(std::min(kPieceCols, w.k - col));
      for (int64_t r = 0; r < num_rows; ++r) {
        std::memcpy(weights + (row + r) * stride + col, piece + r * kPieceStride, num_cols);
      }
    }
  });
}

void pack_transposed(const PackedTernary& w, uint8_t* out, int num_threads) {
  std::vector<int8_t> weights(static_cast<std::size_t>(w.n * w.k));
  unpack(w, weights.data(), num_threads);
  const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                          int8_t* piece) {
    for (int64_t c = 0; c < num_cols; ++c) {
      const int8_t* from = weights.data() + (col + c) * w.k + row;
      for (int64_t r = 0; r < num_rows; ++r) piece[r * kPieceStride + c] = from[r];
    }
  };
  pack_pieces(source, w.k, w.n, Packing::kI2, out, num_threads);
}

void repack(const PackedTernary& w, Packing to, uint8_t* out, int num_threads) {
  validate_packed(w, num_threads);
  if (w.packing == Packing::kI2 || to == Packing::kI2 || to == Packing::kB1) {
    const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t, int8_t* piece) {
      decode_piece(w, row, num_rows, col, piece);
    };
    return pack_pieces(source, w.n, w.k, to, out, num_threads);
  }
  for_row_groups(w.n, num_threads, [&](int64_t row, int64_t num_rows, int8_t*) {
    Strip strip;
    for (int64_t col = 0; col < w.k; col += codec::kStripCols) {
      strip.decode(w, row, num_rows, col);
      strip.encode(to, w.k, row, num_rows, col, out);
    }
  });
  clear_tail(to, w.n, w.k, out);
}

}  // namespace bitinfer
