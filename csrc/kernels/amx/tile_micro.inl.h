// GEMM micro-kernel on AMX-INT8 tiles, for ternary_gemm.inl.h: 32 tokens x 32 rows of int32 sums in
// four tiles. A panel's group is a tile of 64 columns x 16 rows as it lies, and so are 16 rows of
// activations. Fewer than 16 tokens go to the avx512vnni row's kernel. Included inside the amx
// row's anonymous namespace.
#pragma once

// Tiles 0..3: sums [tokens / 16][rows / 16]; 4, 5: activations; 6, 7: codes.
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

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

struct TileMicro {
  static constexpr int kGroups = 2;
  static constexpr int kTokens = 32;

  template <int tokens>
  static BITINFER_INLINE void run(const uint8_t* panel, int64_t group_bytes, int64_t quads,
                                  int rows, const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                  int32_t* acc, int64_t acc_stride) {
    if constexpr (tokens < 16) {
      DotMicro::run<tokens>(panel, group_bytes, quads, rows, a, a_stride, a_sum, acc, acc_stride);
    } else {
      multiply<tokens>(panel, group_bytes, quads, a, a_stride);
      alignas(64) int32_t sums[4][16][16];
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      if constexpr (tokens == 32) {
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
      }
      const uint32_t exists = rows < 32 ? (1u << rows) - 1 : ~0u;
      const __mmask16 mask[2] = {static_cast<__mmask16>(exists),
                                 static_cast<__mmask16>(exists >> 16)};
      for (int t = 0; t < tokens; ++t, acc += acc_stride) {
        for (int v = 0; v < 2; ++v) {
          int32_t* out = acc + v * kGroupRows;
          const __m512i start =
              a_sum ? _mm512_set1_epi32(-a_sum[t]) : _mm512_maskz_loadu_epi32(mask[v], out);
          const __m512i sum = _mm512_add_epi32(start, load64(sums[t / 16 * 2 + v][t % 16]));
          _mm512_mask_storeu_epi32(out, mask[v], sum);
        }
      }
    }
  }

  template <int tokens>
  static BITINFER_INLINE void multiply(const uint8_t* panel, int64_t group_bytes, int64_t quads,
                                       const int8_t* a, int64_t a_stride) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < 4 * quads; k += kTileK, panel += 16 * kQuadBytes) {
      _tile_loadd(6, panel, kQuadBytes);
      _tile_loadd(7, panel + group_bytes, kQuadBytes);
      _tile_loadd(4, a + k, a_stride);
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
      if constexpr (tokens == 32) {
        _tile_loadd(5, a + 16 * a_stride + k, a_stride);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      }
    }
  }
};

template <Packing packing>
BITINFER_SYMBOL void ternary_gemm_i8(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                                     const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                     int64_t m, int32_t* acc, int64_t acc_stride,
                                     uint8_t* scratch) {
  if (m < 16) {
    return gemm<packing, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc,
                                   acc_stride, scratch, kGemmPieceK);
  }
  const TileConfig config;
  _tile_loadconfig(&config);
  gemm<packing, TileMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                           scratch, kTilePieceK<packing>);
  _tile_release();
}
