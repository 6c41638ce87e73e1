// GEMM micro-kernels on AMX-INT8 tiles, for ternary_gemm.inl.h: a panel's group is a tile of 64
// columns x 16 rows as it lies, and so are up to 16 rows of activations. Included inside the amx
// row's anonymous namespace.
#pragma once

// Tiles 0..3: sums; 4: activations, a row a token; 6: codes.
//
// Few tiles are in use at a time, and the others stay zero since load_config: every write to a tile
// takes a physical register until it retires, of which there are few, and fewer when the core's
// other thread has tiles in use. Then eight live tiles leave next to nothing to rename to, and run
// at half the speed of four, that load more often (docs/speed.md).
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr int kTileTokens = 16;

// GCC 12 takes the instruction to read the first 8 bytes only and leaves out stores to the others.
BITINFER_INLINE void load_config(const TileConfig& config) {
  __asm__ volatile("" : : "m"(config));
  _tile_loadconfig(&config);
}

// The compiler does not know that tile loads read memory.
BITINFER_INLINE void codes_are_written() { __asm__ volatile("" : : : "memory"); }

// Pieces of K whose codes, 32 rows, stay in the first-level cache. Whole tiles of 64 columns, as a
// tile reads past the end of a piece: behind the last one activations are zero.
template <Packing packing>
constexpr int64_t kTilePieceK = packing == Packing::kI2 ? 1024 : 960;
constexpr int64_t kTileK = 64;
static_assert(kTilePieceK<Packing::kT3> % kTileK == 0, "whole tiles");
static_assert(kTilePieceK<Packing::kT3> % kLayouts[static_cast<int>(Packing::kT3)].block_k == 0,
              "whole K-blocks");
static_assert(kTilePieceK<Packing::kT5> % (4 * kLayouts[static_cast<int>(Packing::kT5)].block_k) ==
                  0,
              "whole quads");

// acc[r] = (a_sum ? -*a_sum : acc[r]) + sums[r] for the rows of a group that `exists` names.
BITINFER_INLINE void store_group(const int32_t* sums, __mmask16 exists, const int32_t* a_sum,
                                 int32_t* acc) {
  const __m512i start = a_sum ? _mm512_set1_epi32(-*a_sum) : _mm512_maskz_loadu_epi32(exists, acc);
  _mm512_mask_storeu_epi32(acc, exists, _mm512_add_epi32(start, load64(sums)));
}
BITINFER_INLINE __mmask16 first_rows(int64_t rows) {
  return static_cast<__mmask16>(rows < kGroupRows ? rows > 0 ? (1u << rows) - 1 : 0u : ~0u);
}

// Activations come from the second-level cache, which a tile load would wait for.
BITINFER_INLINE void prefetch_rows(const int8_t* a, int64_t a_stride) {
  for (int row = 0; row < kTileTokens; ++row) _mm_prefetch(a + row * a_stride, _MM_HINT_T0);
}

// 16 tokens x 32 rows; fewer tokens go to the avx512vnni row's kernel.
struct TileMicro {
  static constexpr int kGroups = 2;
  static constexpr int kTokens = DotMicro::kTokens;
  static constexpr int kWholeTokens = kTileTokens;

  template <int tokens>
  static BITINFER_INLINE void run(const uint8_t* panel, int64_t group_bytes, int64_t quads,
                                  int rows, const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                  int32_t* acc, int64_t acc_stride) {
    if constexpr (tokens < kTileTokens) {
      DotMicro::run<tokens>(panel, group_bytes, quads, rows, a, a_stride, a_sum, acc, acc_stride);
    } else {
      multiply(panel, group_bytes, 4 * quads, a, a_stride);
      alignas(64) int32_t sums[kGroups][16][16];
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      for (int t = 0; t < tokens; ++t, acc += acc_stride) {
        for (int g = 0; g < kGroups; ++g) {
          store_group(sums[g][t], first_rows(rows - g * kGroupRows), a_sum ? a_sum + t : nullptr,
                      acc + g * kGroupRows);
        }
      }
    }
  }

  static BITINFER_INLINE void multiply(const uint8_t* panel, int64_t group_bytes, int64_t columns,
                                       const int8_t* a, int64_t a_stride) {
    _tile_zero(0);
    _tile_zero(1);
    codes_are_written();
    for (int64_t k = 0; k < columns; k += kTileK, panel += 16 * kQuadBytes) {
      _tile_loadd(4, a + k, a_stride);
      _tile_loadd(6, panel, kQuadBytes);
      _tile_dpbsud(0, 4, 6);
      // These tokens' next columns, at the end the next tokens' first.
      prefetch_rows(a + (k + kTileK < columns ? k + kTileK : kTileTokens * a_stride), a_stride);
      _tile_loadd(6, panel + group_bytes, kQuadBytes);
      _tile_dpbsud(1, 4, 6);
    }
  }
};

// Up to 16 tokens: their sums with all rows of a panel stay in tiles over all of K. While a piece
// of K is multiplied, the next one is unpacked beside it in the first-level cache.
template <Packing packing>
struct FewTokens {
  using Shape = PanelShape<packing>;
  static constexpr int kGroups = Shape::kRows / kGroupRows;
  static constexpr int64_t kPieceK = packing == Packing::kT5   ? kTileColumns
                                     : packing == Packing::kT3 ? 192
                                                               : 256;
  static constexpr int64_t kColumns = packing == Packing::kT5 ? kTileColumns : kTileK;  // of a tile
  static constexpr int64_t kPieceBlocks = kPieceK / Shape::kLayout.block_k;
  static constexpr int64_t kGroupBytes = kPieceK / 4 * kQuadBytes;
  static constexpr int kUnpackParts = packing == Packing::kT5 ? 3 : 1;
  static constexpr int64_t kPartBlocks = kPieceBlocks / kUnpackParts;
  static constexpr int64_t kPartBytes = kGroupBytes / kUnpackParts;
  static_assert(kPieceK % kColumns == 0 && kPieceK % Shape::kLayout.block_k == 0, "whole tiles");

  // beside(part) is called after each of the first kUnpackParts products.
  template <typename Beside>
  static BITINFER_INLINE void multiply(const uint8_t* panel, int64_t columns, const int8_t* a,
                                       int64_t a_stride, const Beside& beside) {
    codes_are_written();
    const auto part = [&](int64_t k, int group) {
      if (k == 0 && group < kUnpackParts) beside(group);
    };
    for (int64_t k = 0; k < columns; k += kColumns, panel += kColumns / 4 * kQuadBytes) {
      _tile_loadd(4, a + k, a_stride);
      _tile_loadd(6, panel, kQuadBytes);
      _tile_dpbsud(0, 4, 6);
      part(k, 0);
      _tile_loadd(6, panel + kGroupBytes, kQuadBytes);
      _tile_dpbsud(1, 4, 6);
      part(k, 1);
      if constexpr (kGroups == 4) {
        _tile_loadd(6, panel + 2 * kGroupBytes, kQuadBytes);
        _tile_dpbsud(2, 4, 6);
        part(k, 2);
        _tile_loadd(6, panel + 3 * kGroupBytes, kQuadBytes);
        _tile_dpbsud(3, 4, 6);
      }
    }
  }

  // Sums of one panel.
  static BITINFER_INLINE void sum(const uint8_t* tile, int64_t num_tiles, int64_t num_blocks,
                                  const int8_t* a, int64_t a_stride, uint8_t* panels) {
    const int64_t tile_bytes = num_blocks * Shape::kLayout.block_bytes;
    const auto unpack = [&](int64_t first, int part, uint8_t* panel) {
      first += part * kPartBlocks;
      if (first >= num_blocks) return;
      const int64_t blocks = num_blocks - first < kPartBlocks ? num_blocks - first : kPartBlocks;
      unpack_panel<packing>(tile, num_tiles, tile_bytes, first, blocks, panel + part * kPartBytes,
                            kGroupBytes);
    };
    uint8_t* panel = panels;
    uint8_t* next = panels + Shape::kRows * kPieceK;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int part = 0; part < kUnpackParts; ++part) unpack(0, part, panel);
    for (int64_t first = 0; first < num_blocks; first += kPieceBlocks, a += kPieceK) {
      const int64_t left = num_blocks - first;
      multiply(panel, left < kPieceBlocks ? left * Shape::kLayout.block_k : kPieceK, a, a_stride,
               [&](int part) { unpack(first + kPieceBlocks, part, next); });
      uint8_t* const done = panel;
      panel = next;
      next = done;
    }
  }

  static BITINFER_INLINE void run(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                                  const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                  int64_t m, int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
    const int64_t tile_bytes = num_blocks * Shape::kLayout.block_bytes;
    for (; num_tiles > 0; num_tiles -= Shape::kTiles) {
      const int64_t here = num_tiles < Shape::kTiles ? num_tiles : Shape::kTiles;
      sum(tiles, here, num_blocks, a, a_stride, scratch);
      alignas(64) int32_t sums[4][16][16];
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      _tile_stored(2, sums[2], 64);
      _tile_stored(3, sums[3], 64);
      const int64_t rows = here * Shape::kLayout.tile_rows;
      for (int64_t t = 0; t < m; ++t) {
        for (int g = 0; g < kGroups; ++g) {
          store_group(sums[g][t], first_rows(rows - g * kGroupRows), a_sum + t,
                      acc + t * acc_stride + g * kGroupRows);
        }
      }
      tiles += Shape::kTiles * tile_bytes;
      acc += Shape::kRows;
    }
  }
};

template <Packing packing>
BITINFER_SYMBOL void ternary_gemm_i8(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                                     const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                     int64_t m, int32_t* acc, int64_t acc_stride,
                                     uint8_t* scratch) {
  if constexpr (packing == Packing::kT5) {
    constexpr int kByVectors = 3;  // up to so many are faster without tiles
    if (m <= kByVectors)
      return gemm_few_t5(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                         scratch, kGemmScratchBytes);
  }
  if constexpr (packing == Packing::kI2) {
    constexpr int kByRows = 12;  // likewise
    if (m <= kByRows)
      return gemm_few_i2(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride);
  }
  TileConfig config;
  if (m <= kTileTokens) {
    constexpr int64_t kColumns = FewTokens<packing>::kColumns;
    for (int tile = 0; tile < 5; ++tile) config.rows[tile] = static_cast<uint8_t>(m);
    config.row_bytes[4] = kColumns;
    config.rows[6] = kColumns / 4;
    load_config(config);
    FewTokens<packing>::run(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                            scratch);
  } else {
    load_config(config);
    gemm<packing, TileMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                             scratch, kTilePieceK<packing>);
  }
  _tile_release();
}

// Products of whole tiles that are in registers; of four sums, as one waits for its last product.
BITINFER_SYMBOL int64_t multiply_peak(int64_t steps) {
  const TileConfig config;
  load_config(config);
  for (int64_t i = 0; i < steps; ++i) {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 6);
    _tile_dpbsud(2, 4, 6);
    _tile_dpbsud(3, 4, 6);
  }
  _tile_release();
  return steps * 4 * kTileTokens * kGroupRows * kTileK;
}
