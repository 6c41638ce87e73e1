// GEMM of few tokens on t5, and its GEMV: packed bytes become codes of their trits where they
// stand, so that neither codes nor sums leave the registers. Included inside the anonymous
// namespace of a row, after unpack_t5.inl.h, token_blocks.inl.h and dot_words.h.
//
// First the bytes of 4 K-blocks are brought side by side, so that a 32-bit lane holds those of one
// row; the codes of their trits d are columns d, 5 + d, 10 + d and 15 + d of these 20, and
// activations are put into that order. One look-up gives four trits' codes of a byte and another
// the fifth's; GF2P8AFFINEQB, a shift and a mask in one, takes the four apart in place. Spreading
// them by vpmultishiftqb would be fewer instructions, but Zen 5 runs that on the ports of vpdpbusd.
#pragma once

constexpr int kFewBlocks = 4;  // K-blocks side by side
constexpr int kFewColumns = kFewBlocks * static_cast<int>(kT5BlockK);
constexpr int kFewOrdered = 3 * kFewColumns;  // columns that one vector orders

struct T5Digits {
  alignas(64) uint8_t four[128];   // of magnitudes 0..121: codes of trits 0..3, trit d in bits 2 d
  alignas(64) uint8_t last[128];   // the code of trit 4
  alignas(64) uint8_t column[64];  // whose activation byte i of a vector is
};

constexpr T5Digits make_t5_digits() {
  T5Digits t{};
  for (int m = 0; m < 122; ++m) {
    int u = 121 + m;
    t.last[m] = static_cast<uint8_t>(u % 3);
    for (int d = 3; d >= 0; --d) {
      u /= 3;
      t.four[m] = static_cast<uint8_t>(t.four[m] | u % 3 << 2 * d);
    }
  }
  for (int i = 0; i < kFewOrdered; ++i) {
    const int d = i % kFewColumns / kFewBlocks, block = i % kFewBlocks;
    t.column[i] = static_cast<uint8_t>(i / kFewColumns * kFewColumns + block * kT5BlockK + d);
  }
  return t;
}
constexpr T5Digits kT5Digits = make_t5_digits();

constexpr int64_t few_row_bytes(int64_t columns) {
  return (columns + kFewColumns - 1) / kFewColumns * kFewColumns;
}

// Activations of `columns` columns in the order of codes, then zeros: few_row_bytes of them, and up
// to 64 bytes more are written.
BITINFER_INLINE void order_activations(const int8_t* a, int64_t columns, uint8_t* ordered) {
  const __m512i column = load64(kT5Digits.column);
  for (int64_t k = 0; k < columns; k += kFewOrdered) {
    const int64_t count = columns - k < kFewOrdered ? columns - k : kFewOrdered;
    const __m512i x = _mm512_maskz_loadu_epi8((uint64_t{1} << count) - 1, a + k);
    _mm512_storeu_si512(ordered + k, _mm512_permutexvar_epi8(column, x));
  }
}

// Up to 4 K-blocks of a tile, four bytes a row: 128-bit lane l of rows[g] has rows 16 l + 4 g +
// 0..3, for g = 0..3, or 0 and 1 alone, or with `half` 1 rows 2 and 3 as 0 and 1. Columns beyond
// the last block get any codes (their activations are zero).
template <int groups, int half>
BITINFER_INLINE void bring_together(const uint8_t* tile, int64_t blocks, __m512i* rows) {
  __m512i block[kFewBlocks];
  for (int i = 0; i < kFewBlocks; ++i)
    block[i] = in_register(load64(tile + kT5BlockBytes * (i < blocks ? i : 0)));
  for (int h = half; h < half + groups / 2; ++h, rows += 2) {
    const __m512i ab =
        h ? _mm512_unpackhi_epi8(block[0], block[1]) : _mm512_unpacklo_epi8(block[0], block[1]);
    const __m512i cd =
        h ? _mm512_unpackhi_epi8(block[2], block[3]) : _mm512_unpacklo_epi8(block[2], block[3]);
    rows[0] = _mm512_unpacklo_epi16(ab, cd);
    rows[1] = _mm512_unpackhi_epi16(ab, cd);
  }
}

// The codes of `groups` vectors of packed bytes, trits 0..3 as four[g], trit 4 as last[g]. Indices
// ignore bit 7, which turns every code c into 2 - c.
template <int groups>
BITINFER_INLINE void look_up_codes(const __m512i* rows, __m512i* four, __m512i* last) {
  __m512i low_four = load64(kT5Digits.four), low_last = load64(kT5Digits.last);
  const __m512i high_four = load64(kT5Digits.four + 64), high_last = load64(kT5Digits.last + 64);
  keep_in_place(low_four);  // loaded once
  keep_in_place(low_last);
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g) {
    const __mmask64 minus = _mm512_movepi8_mask(rows[g]);
    const __m512i l = _mm512_permutex2var_epi8(low_last, rows[g], high_last);
    last[g] = _mm512_mask_sub_epi8(l, minus, fill_dot_bytes(2), l);
    const __m512i f = _mm512_permutex2var_epi8(low_four, rows[g], high_four);
    four[g] = _mm512_mask_sub_epi8(f, minus, fill_dot_bytes(0xaa), f);
  }
}

// Bits 2 d and 2 d + 1 of each byte, d < 4.
BITINFER_INLINE __m512i code_of_four(__m512i four, int d) {
  if (d == 0) return _mm512_and_si512(four, fill_dot_bytes(3));
  const int64_t bit_0 = int64_t{1} << 2 * d, bit_1 = bit_0 << 1;  // byte 7 of a matrix is bit 0's
  return _mm512_gf2p8affine_epi64_epi8(four, _mm512_set1_epi64(bit_0 << 56 | bit_1 << 48), 0);
}

// acc[t][r] += the sum of a tile's K-blocks, for the rows r of bring_together; a: (tokens,
// a_stride) as order_activations leaves them. Prefetches groups * 64 of every 256 bytes from
// `ahead` on.
template <int tokens, int groups, int half>
BITINFER_SYMBOL void add_few(const uint8_t* tile, int64_t blocks, const uint8_t* ahead,
                             const uint8_t* a, int64_t a_stride, int32_t* acc, int64_t acc_stride) {
  __m512i sum[tokens][groups];
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) sum[t][g] = zero_words();
  }
  for (; blocks > 0; blocks -= kFewBlocks, a += kFewColumns) {
    for (int g = 0; g < groups; ++g) prefetch(ahead + 64 * g);
    __m512i rows[groups];
    bring_together<groups, half>(tile, blocks, rows);
    __m512i four[groups], last[groups];
    look_up_codes<groups>(rows, four, last);
#pragma GCC unroll 5
    for (int d = kT5BlockK - 1; d >= 0; --d) {
      __m512i code[groups];
#pragma GCC unroll 4
      for (int g = 0; g < groups; ++g) code[g] = d == 4 ? last[g] : code_of_four(four[g], d);
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        int32_t columns;
        __builtin_memcpy(&columns, a + t * a_stride + kFewBlocks * d, 4);
        const __m512i x = fill_dot_words(columns);
#pragma GCC unroll 4
        for (int g = 0; g < groups; ++g) {
          sum[t][g] = dot_add(sum[t][g], code[g], x);
          keep_in_place(sum[t][g]);
        }
      }
    }
    tile += kFewBlocks * kT5BlockBytes;
    ahead += kFewBlocks * kT5BlockBytes;
  }
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t, acc += acc_stride) {
    for (int g = 0; g < groups; g += 2)
      add_to_eights(sum[t][g], sum[t][g + 1], acc + 8 * half + 4 * g);
  }
}

constexpr int kMostFewTokens = 40;  // up to so many it is faster than panels

// m >= 1; `ordered` is where activations are put into order, in pieces of K that it has room for.
BITINFER_INLINE void gemm_few_t5(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                                 const int8_t* a, int64_t a_stride, const int32_t* a_sum, int64_t m,
                                 int32_t* acc, int64_t acc_stride, uint8_t* ordered,
                                 int64_t ordered_bytes) {
  const int64_t tile_bytes = num_blocks * kT5BlockBytes;
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t r = 0; r < num_tiles * kT5Rows; r += kGroupRows)
      _mm512_storeu_si512(acc + t * acc_stride + r, _mm512_set1_epi32(-a_sum[t]));
  }
  const int64_t piece = (ordered_bytes - 64) / m / kFewColumns * kFewBlocks;
  for (int64_t first = 0; first < num_blocks; first += piece) {
    const int64_t blocks = num_blocks - first < piece ? num_blocks - first : piece;
    const int64_t row_bytes = few_row_bytes(blocks * kT5BlockK);
    for (int64_t t = 0; t < m; ++t)
      order_activations(a + t * a_stride + first * kT5BlockK, blocks * kT5BlockK,
                        ordered + t * row_bytes);
    const uint8_t* tile = tiles + first * kT5BlockBytes;
    for (int64_t i = 0; i < num_tiles; ++i, tile += tile_bytes) {
      for_each_token_block<kMicroTokens>(0, m, [&](auto here, int64_t t) {
        constexpr int kTokens = decltype(here)::value;
        const auto add = [&](auto* kernel, const uint8_t* ahead) {
          kernel(tile, blocks, ahead, ordered + t * row_bytes, row_bytes,
                 acc + t * acc_stride + i * kT5Rows, acc_stride);
        };
        if constexpr (kTokens <= 5) {  // up to 20 vectors of sums
          add(add_few<kTokens, 4, 0>, tile + kBytesAhead);
        } else {  // each half fetches half of the next tile
          add(add_few<kTokens, 2, 0>, tile + tile_bytes);
          add(add_few<kTokens, 2, 1>, tile + tile_bytes + 128);
        }
      });
    }
  }
}

// Each stream by itself: reading several would leave what is fetched ahead for later.
BITINFER_INLINE void gemv_few_t5(const TileStreams& streams, int64_t num_blocks,
                                 const Activation& a) {
  alignas(64) uint8_t ordered[16 * 1024];
  for (int s = 0; s < streams.num_streams; ++s) {
    gemm_few_t5(streams.tiles[s], streams.tiles_per_stream, num_blocks, a.codes, 0, &a.sum, 1,
                streams.acc[s], 0, ordered, sizeof ordered);
  }
}
