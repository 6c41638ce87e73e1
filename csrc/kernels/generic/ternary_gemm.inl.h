// GEMM: weights are unpacked once a panel and piece of K, then met by all tokens.
//
//   acc[m][n] = sum_k c[n][k] * a[m][k] - sum_k a[m][k],   c = w + 1
//
// Needs unpack_panel.inl.h, token_blocks.inl.h and, of the row, a struct Micro of
//   kGroups, kTokens   the most groups of 16 rows and tokens that its kernel takes
//   kWholeTokens       tokens that it takes at once as long as there are as many; 0: none
//   run<tokens>(panel, group_bytes, quads, rows, a, a_stride, a_sum, acc, acc_stride)
// which writes acc[t][r] = (a_sum ? -a_sum[t] : acc[t][r]) + sum_k c * a for kGroups groups, of
// which the first `rows` rows exist; tokens is kWholeTokens or 1..kTokens. Included inside the
// anonymous namespace of a row.
#pragma once

// 64 rows of it are 240 KiB, half of kGemmScratchBytes: a second-level cache holds them. A whole
// number of K-blocks of every packing, and of 4 of t5's.
constexpr int64_t kGemmPieceK = 3840;

template <Packing packing>
struct PanelShape {
  static constexpr PackedLayout kLayout = kLayouts[static_cast<int>(packing)];
  static constexpr int64_t kRows = kLayout.tile_rows > 32 ? kLayout.tile_rows : 32;
  static constexpr int64_t kTiles = kRows / kLayout.tile_rows;
  static_assert(kGemmPieceK % (4 * kLayout.block_k) == 0 || packing != Packing::kT5, "whole quads");
  static_assert(kGemmPieceK % kLayout.block_k == 0, "whole K-blocks");
  static_assert(kRows * kGemmPieceK <= kGemmScratchBytes, "scratch");
};

// K-blocks [first, first + blocks) of up to kTiles tiles; missing tiles repeat the first one.
template <Packing packing>
BITINFER_INLINE void unpack_panel(const uint8_t* tile, int64_t num_tiles, int64_t tile_bytes,
                                  int64_t first, int64_t blocks, uint8_t* panel,
                                  int64_t group_bytes) {
  const uint8_t* begin = tile + first * PanelShape<packing>::kLayout.block_bytes;
  if constexpr (packing == Packing::kI2) {
    const uint8_t* rows[32];
    for (int r = 0; r < 32; ++r) rows[r] = begin + (r < num_tiles ? r * tile_bytes : 0);
    unpack_i2(rows, blocks, panel, group_bytes);
  }
  if constexpr (packing == Packing::kT3) unpack_t3(begin, blocks, panel, group_bytes);
  if constexpr (packing == Packing::kT5) unpack_t5(begin, blocks, panel, group_bytes);
  if constexpr (packing == Packing::kB1) unpack_b1(begin, blocks, panel, group_bytes);
}

template <Packing packing, typename Micro>
BITINFER_INLINE void gemm(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                          const int8_t* a, int64_t a_stride, const int32_t* a_sum, int64_t m,
                          int32_t* acc, int64_t acc_stride, uint8_t* panel, int64_t piece_k) {
  using Shape = PanelShape<packing>;
  constexpr int64_t kMicroRows = Micro::kGroups * kGroupRows;
  const int64_t tile_bytes = num_blocks * Shape::kLayout.block_bytes;
  const int64_t piece_blocks = piece_k / Shape::kLayout.block_k;
  for (int64_t tile = 0; tile < num_tiles; tile += Shape::kTiles) {
    const int64_t tiles_here = num_tiles - tile < Shape::kTiles ? num_tiles - tile : Shape::kTiles;
    const int64_t rows = tiles_here * Shape::kLayout.tile_rows;
    for (int64_t first = 0; first < num_blocks; first += piece_blocks) {
      const int64_t blocks = num_blocks - first < piece_blocks ? num_blocks - first : piece_blocks;
      const int64_t quads = (blocks * Shape::kLayout.block_k + 3) / 4;
      const int64_t group_bytes =
          (quads + 4) / 5 * 5 * kQuadBytes;  // unpack_t5 writes 5 quads at a time
      unpack_panel<packing>(tiles + tile * tile_bytes, tiles_here, tile_bytes, first, blocks, panel,
                            group_bytes);
      const int8_t* a_piece = a + first * Shape::kLayout.block_k;
      for (int64_t row = 0; row < rows; row += kMicroRows) {
        const uint8_t* groups = panel + row / kGroupRows * group_bytes;
        const int rows_here = static_cast<int>(rows - row < kMicroRows ? rows - row : kMicroRows);
        int32_t* out = acc + tile * Shape::kLayout.tile_rows + row;
        const auto run = [&](auto tokens, int64_t i) {
          Micro::template run<decltype(tokens)::value>(
              groups, group_bytes, quads, rows_here, a_piece + i * a_stride, a_stride,
              first == 0 ? a_sum + i : nullptr, out + i * acc_stride, acc_stride);
        };
        int64_t done = 0;
        if constexpr (Micro::kWholeTokens > 0) {
          for (; m - done >= Micro::kWholeTokens; done += Micro::kWholeTokens)
            run(Constant<Micro::kWholeTokens>(), done);
        }
        for_each_token_block<Micro::kTokens>(done, m, run);
      }
    }
  }
}

// GEMV of the dot family for a packing without a kernel of its own: the GEMM with one token, in
// pieces that stay in the first-level cache.
template <Packing packing, typename Micro>
BITINFER_INLINE void gemv_by_gemm(const TileStreams& streams, int64_t num_blocks,
                                  const Activation& a) {
  constexpr int64_t kPieceK = 240;
  using Shape = PanelShape<packing>;
  alignas(64) uint8_t panel[Shape::kRows * kPieceK];
  const int64_t tile_bytes = num_blocks * Shape::kLayout.block_bytes;
  for_each_lane_group<1>(streams, tile_bytes, Shape::kLayout.tile_rows, [&](const auto& lane) {
    gemm<packing, Micro>(lane.tile[0], 1, num_blocks, a.codes, 0, &a.sum, 1, lane.acc[0], 0, panel,
                         kPieceK);
  });
}
