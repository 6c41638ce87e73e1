// The scalar row's dot products and GEMM: tiles are decoded to int8 rows, then multiplied.
// Included inside the anonymous namespace of the row.
#pragma once

// Trits of every packed value, most significant first; impossible magnitudes are zero.
struct Trits {
  int8_t t3[32][3];  // index: magnitude | sign << 4
  int8_t t5[256][5];
};

constexpr Trits make_trits() {
  Trits t{};
  for (int sign = 0; sign < 2; ++sign) {
    for (int magnitude = 0; magnitude <= 121; ++magnitude) {
      int v = sign ? -magnitude : magnitude;
      int8_t digit[5] = {};
      for (int i = 4; i >= 0; --i) {
        const int d = (v + 243 + 1) % 3 - 1;
        digit[i] = static_cast<int8_t>(d);
        v = (v - d) / 3;
      }
      for (int i = 0; i < 5; ++i) t.t5[magnitude | sign << 7][i] = digit[i];
      if (magnitude <= 13) {
        for (int i = 0; i < 3; ++i) t.t3[magnitude | sign << 4][i] = digit[2 + i];
      }
    }
  }
  return t;
}
constexpr Trits kTrits = make_trits();

// One K-block of a tile to int8 rows (tile_rows, block_k) that lie `stride` apart.
BITINFER_INLINE void decode_i2(const uint8_t* block, int8_t* w, int64_t) {
  for (int g = 0; g < 4; ++g) {
    for (int p = 0; p < 64; ++p)
      w[64 * g + p] = static_cast<int8_t>(((block[p] >> (2 * g)) & 3) - 1);
  }
}

BITINFER_INLINE void decode_t3(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < kT3Rows; ++r, w += stride) {
    const int signs = block[128 + r];
    for (int j = 0; j < 8; ++j) {
      const int magnitude = (block[32 * (j / 2) + r] >> (4 * (j % 2))) & 15;
      const int8_t* trits = kTrits.t3[magnitude | ((signs >> (7 - j)) & 1) << 4];
      for (int i = 0; i < 3; ++i) w[3 * j + i] = trits[i];
    }
  }
}

BITINFER_INLINE void decode_t5(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < kByteRows; ++r, w += stride) {
    const int8_t* trits = kTrits.t5[block[r]];
    for (int i = 0; i < 5; ++i) w[i] = trits[i];
  }
}

BITINFER_INLINE void decode_b1(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < kByteRows; ++r, w += stride) {
    for (int i = 0; i < 8; ++i) w[i] = (block[r] >> i) & 1 ? int8_t{1} : int8_t{-1};
  }
}

template <Packing packing>
BITINFER_INLINE void decode_block(const uint8_t* block, int8_t* w, int64_t stride) {
  if constexpr (packing == Packing::kI2) decode_i2(block, w, stride);
  if constexpr (packing == Packing::kT3) decode_t3(block, w, stride);
  if constexpr (packing == Packing::kT5) decode_t5(block, w, stride);
  if constexpr (packing == Packing::kB1) decode_b1(block, w, stride);
}

BITINFER_INLINE int32_t dot_i8(const int8_t* w, const int8_t* a, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += w[i] * a[i];
  return sum;
}

// A piece of K-blocks of one tile is decoded once, then multiplied with all M rows of a.
template <Packing packing>
BITINFER_INLINE void gemm_tile(const uint8_t* tile, int64_t num_blocks, const int8_t* a,
                               int64_t a_stride, int64_t m, int32_t* acc, int64_t acc_stride,
                               int8_t* piece, int64_t piece_blocks) {
  constexpr PackedLayout kLayout = layout(packing);
  const int64_t stride = piece_blocks * kLayout.block_k;
  for (int64_t first = 0; first < num_blocks; first += piece_blocks) {
    const int64_t blocks = num_blocks - first < piece_blocks ? num_blocks - first : piece_blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      decode_block<packing>(tile + (first + b) * kLayout.block_bytes, piece + b * kLayout.block_k,
                            stride);
    }
    for (int64_t i = 0; i < m; ++i) {
      const int8_t* a_piece = a + i * a_stride + first * kLayout.block_k;
      for (int64_t r = 0; r < kLayout.tile_rows; ++r) {
        const int32_t sum = dot_i8(piece + r * stride, a_piece, blocks * kLayout.block_k);
        acc[i * acc_stride + r] = first ? acc[i * acc_stride + r] + sum : sum;
      }
    }
  }
}

// GEMV of the dot family: the GEMM's tile with M = 1 and a piece that stays in the first-level
// cache.
template <Packing packing>
BITINFER_INLINE void gemv_dot(const TileStreams& streams, int64_t num_blocks, const Activation& a) {
  constexpr PackedLayout kLayout = layout(packing);
  constexpr int64_t kPieceBlocks = ceil_div(120, kLayout.block_k);
  alignas(64) int8_t piece[kLayout.tile_rows * kPieceBlocks * kLayout.block_k];
  for (int64_t t = 0; t < streams.tiles_per_stream; ++t) {
    for (int s = 0; s < streams.num_streams; ++s) {
      gemm_tile<packing>(streams.tiles[s] + t * num_blocks * kLayout.block_bytes, num_blocks,
                         a.codes, 0, 1, streams.acc[s] + t * kLayout.tile_rows, 0, piece,
                         kPieceBlocks);
    }
  }
}

BITINFER_INLINE void gemv_rows_i2(const ChosenRows& w, const Activation& a, int32_t* acc) {
  assert(w.count >= 1 && w.num_blocks >= 1);
  const int64_t row_bytes = w.num_blocks * layout(Packing::kI2).block_bytes;
  for (int64_t i = 0; i < w.count; ++i) {
    gemv_dot<Packing::kI2>({1, 1, {w.w + w.rows[i] * row_bytes}, {acc + i}}, w.num_blocks, a);
  }
}

template <Packing packing>
BITINFER_INLINE void gemm(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                          const int8_t* a, int64_t a_stride, int64_t m, int32_t* acc,
                          int64_t acc_stride, uint8_t* scratch) {
  constexpr PackedLayout kLayout = layout(packing);
  constexpr int64_t kPieceBlocks = kGemmScratchBytes / 2 / (kLayout.tile_rows * kLayout.block_k);
  const int64_t piece_blocks = num_blocks < kPieceBlocks ? num_blocks : kPieceBlocks;
  assert(m >= 1 && num_tiles >= 1 && num_blocks >= 1);
  for (int64_t t = 0; t < num_tiles; ++t) {
    gemm_tile<packing>(tiles + t * num_blocks * kLayout.block_bytes, num_blocks, a, a_stride, m,
                       acc + t * kLayout.tile_rows, acc_stride, reinterpret_cast<int8_t*>(scratch),
                       piece_blocks);
  }
}
