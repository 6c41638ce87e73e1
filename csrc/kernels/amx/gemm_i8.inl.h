// The head's GEMM on AMX-INT8 tiles: 32 rows of weights, as they lie, by up to 32 tokens, whose
// codes are first put into quads. Included inside the amx row's anonymous namespace.
//
// A tile of weights is 16 rows of 64 columns; one of tokens has a quad of columns a row, a dword a
// token. Columns are taken in pieces whose quads fit on the stack; sums of later pieces are added.
#pragma once

constexpr int64_t kHeadPieceK = 4096;
constexpr int64_t kHeadTileRows = 16;
constexpr int64_t kHeadTileTokens = 16;
// Columns ahead of the present read, in each of two tiles' rows.
constexpr int64_t kHeadAhead = kBytesAhead / (2 * kHeadTileRows);

// Columns [0, columns) of up to 16 tokens to quads: (columns / 4, 16) dwords, missing tokens those
// of the first. columns is a multiple of 64.
BITINFER_INLINE void tokens_to_quads(const int8_t* a, int64_t a_stride, int64_t tokens,
                                     int64_t columns, int32_t* quads) {
  alignas(64) int32_t from[kHeadTileTokens];
  for (int t = 0; t < kHeadTileTokens; ++t)
    from[t] = static_cast<int32_t>(t < tokens ? t * a_stride : 0);
  const __m512i token = load64(from);
  for (int64_t q = 0; q < columns / 4; ++q)
    _mm512_store_si512(quads + q * kHeadTileTokens, _mm512_i32gather_epi32(token, a + 4 * q, 1));
}

// 32 rows by 16 tokens. Tiles 0, 1: sums of 16 rows each; 4: weights; 6: tokens (four in use:
// tile_micro.inl.h).
BITINFER_INLINE void head_tiles(const int8_t* w, int64_t k_padded, int64_t columns,
                                const int32_t* quads) {
  _tile_zero(0);
  _tile_zero(1);
  const int64_t next = 2 * kHeadTileRows * k_padded;  // the rows read after these
  const int8_t* lower = w + kHeadTileRows * k_padded;
  const auto* tokens = reinterpret_cast<const uint8_t*>(quads);
  for (int64_t k = 0; k < columns; k += 64, tokens += 16 * 64) {
    const int64_t ahead =
        k + kHeadAhead < columns ? k + kHeadAhead : next + k + kHeadAhead - columns;
    for (int64_t r = 0; r < 2 * kHeadTileRows; ++r)
      prefetch(reinterpret_cast<const uint8_t*>(w) + r * k_padded + ahead);
    _tile_loadd(6, tokens, 64);
    _tile_loadd(4, w + k, k_padded);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(4, lower + k, k_padded);
    _tile_dpbssd(1, 4, 6);
  }
}

// acc[t * acc_stride + r] (+)= the sums of 16 rows and 16 tokens.
BITINFER_INLINE void store_head_tile(const int32_t (*sums)[16], int64_t tokens, bool first,
                                     int32_t* acc, int64_t acc_stride) {
  for (int64_t t = 0; t < tokens; ++t, acc += acc_stride) {
    for (int64_t r = 0; r < kHeadTileRows; ++r)
      acc[r] = static_cast<int32_t>((first ? 0u : static_cast<uint32_t>(acc[r])) +
                                    static_cast<uint32_t>(sums[r][t]));
  }
}

// Rows [0, n), n a multiple of 32, and tokens [0, m), m <= 32: the second 16 find the weights in
// the cache.
BITINFER_INLINE void gemm_i8_by_tiles(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                                      int64_t m, int64_t k_padded, int32_t* acc,
                                      int64_t acc_stride) {
  constexpr int kTokenTiles = 2;
  alignas(64) int32_t quads[kTokenTiles][kHeadPieceK / 4 * kHeadTileTokens];
  const int64_t counts[kTokenTiles] = {m < kHeadTileTokens ? m : kHeadTileTokens,
                                       m - kHeadTileTokens};
  for (int64_t first = 0; first < k_padded; first += kHeadPieceK) {
    const int64_t columns = k_padded - first < kHeadPieceK ? k_padded - first : kHeadPieceK;
    for (int i = 0; i < kTokenTiles && counts[i] > 0; ++i)
      tokens_to_quads(a + i * kHeadTileTokens * a_stride + first, a_stride, counts[i], columns,
                      quads[i]);
    codes_are_written();
    for (int64_t row = 0; row < n; row += 2 * kHeadTileRows) {
      for (int i = 0; i < kTokenTiles && counts[i] > 0; ++i) {
        head_tiles(w + row * k_padded + first, k_padded, columns, quads[i]);
        alignas(64) int32_t sums[2][16][16];
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        for (int half = 0; half < 2; ++half) {
          store_head_tile(sums[half], counts[i], first == 0,
                          acc + i * kHeadTileTokens * acc_stride + row + half * kHeadTileRows,
                          acc_stride);
        }
      }
    }
  }
}

BITINFER_SYMBOL void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                             const int32_t* a_sum, int64_t m, int64_t k_padded, int32_t* acc,
                             int64_t acc_stride) {
  constexpr int64_t kByRows = 10;  // up to so many are faster without tiles
  const int64_t rows = m <= kByRows ? 0 : n / (2 * kHeadTileRows) * (2 * kHeadTileRows);
  if (rows < n) {
    gemm_i8_by_rows(w + rows * k_padded, n - rows, a, a_stride, a_sum, m, k_padded, acc + rows,
                    acc_stride);
  }
  if (rows == 0) return;
  const TileConfig config;
  load_config(config);
  for (int64_t i = 0; i < m; i += 2 * kHeadTileTokens) {
    const int64_t left = m - i;
    gemm_i8_by_tiles(w, rows, a + i * a_stride, a_stride,
                     left < 2 * kHeadTileTokens ? left : 2 * kHeadTileTokens, k_padded,
                     acc + i * acc_stride, acc_stride);
  }
  _tile_release();
}
