// The packed layouts of a ternary matrix W (N, K), row-major, w in {-1, 0, 1}: the one truth.
//
// Python reads these numbers through _core.layouts(); docs/packed-format.md draws the bytes.
// A matrix is cut into tiles of `tile_rows` rows; a tile is a run of K-blocks of `block_k` columns,
// each `block_bytes` long, in column order. Tiles follow each other with no gap; the whole is
// zero-padded to a multiple of kPackedAlign bytes. Rows and columns that fill no whole tile hold
// zero weights, in b1, which has none, bits 0.
//
// i2  tile 1 row, block 256 columns = 64 bytes.
//     byte p, bits 2g+1..2g = code (w + 1) of column 64 g + p        g = 0..3, p = 0..63; code 3 is
//     refused
// t3  tile 32 rows, block 24 columns = 8 groups of 3 = 160 bytes.
//     group j, row r: v = 9 w[3j] + 3 w[3j+1] + w[3j+2] in -13..13
//     bytes 32 i + r (i = 0..3): |v| of group 2i in the low nibble, of group 2i + 1 in the high
//     nibble byte 128 + r: bit 7 - j = 1 iff v of group j < 0 (so the sign vector is shifted left
//     once a group) magnitudes 14, 15 and a sign on magnitude 0 are refused
// t5  tile 64 rows, block 5 columns = 64 bytes.
//     byte r: v = 81 w[0] + 27 w[1] + 9 w[2] + 3 w[3] + w[4] in -121..121
//     bits 6..0 = |v|, bit 7 = 1 iff v < 0; magnitudes above 121 and negative zero are refused
// b1  tile 64 rows, block 8 columns = 64 bytes; of matrices in which no weight is 0.
//     byte r, bit i = 1 iff w[i] = +1, 0 iff w[i] = -1
//     A nibble of each row side by side is an index into the 16 sums of 4 activations, so two
//     look-ups a table half serve 8 columns of as many rows as a register has bytes, with additions
//     only, on SSE, AVX2, AVX-512 and NEON alike. Masks of a row's own bits would take an addition
//     for each column and could not stop within 64 columns or more; here a group of 128 columns
//     that has a scale of its own is 16 whole blocks.
#pragma once

#include <cstdint>

namespace bitinfer {

enum class Packing : int { kI2 = 0, kT3 = 1, kT5 = 2, kB1 = 3 };
constexpr int kNumPackings = 4;

struct PackedLayout {
  const char* name;
  int64_t tile_rows;    // rows of a tile
  int64_t block_k;      // columns of a K-block
  int64_t block_bytes;  // bytes of a K-block of one tile
};

constexpr PackedLayout kLayouts[kNumPackings] = {
    {"i2", 1, 256, 64},
    {"t3", 32, 24, 160},
    {"t5", 64, 5, 64},
    {"b1", 64, 8, 64},
};

constexpr int64_t kPackedAlign = 64;  // packed buffers start at and are padded to multiples of this

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

constexpr const PackedLayout& layout(Packing p) { return kLayouts[static_cast<int>(p)]; }
constexpr int64_t num_tiles(Packing p, int64_t n) { return ceil_div(n, layout(p).tile_rows); }
constexpr int64_t num_blocks(Packing p, int64_t k) { return ceil_div(k, layout(p).block_k); }
constexpr int64_t tile_bytes(Packing p, int64_t k) {
  return num_blocks(p, k) * layout(p).block_bytes;
}
constexpr int64_t packed_bytes(Packing p, int64_t n, int64_t k) {
  return round_up(num_tiles(p, n) * tile_bytes(p, k), kPackedAlign);
}

constexpr int64_t kTileColumns = 60;  // of t5 codes that the amx row multiplies at once

// Bytes of an int8 activation row of K columns: enough zeros behind it for every packing's last
// block, for 64-byte loads and whole tiles, so that one quantized row serves all kernels.
constexpr int64_t activation_bytes(int64_t k) {
  int64_t most = round_up(round_up(k, kTileColumns), 64);
  for (const PackedLayout& l : kLayouts) {
    const int64_t padded = round_up(round_up(k, l.block_k), 64);
    most = padded > most ? padded : most;
  }
  return most;
}

// A view of a packed matrix; the caller keeps `data` alive. data: packed_bytes(packing, n, k),
// 64-byte aligned.
struct PackedTernary {
  Packing packing;
  int64_t n;
  int64_t k;
  const uint8_t* data;
};

}  // namespace bitinfer
