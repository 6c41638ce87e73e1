// GEMM of few tokens on t5: codes stay four to a byte until they are multiplied, so that neither
// they nor the sums leave the first-level cache and the registers. Included inside the anonymous
// namespace of a row, after unpack_t5.inl.h and dot_words.h.
#pragma once

constexpr int64_t kFewBlocks = 96;  // K-blocks of a piece: 480 columns, 7.5 KiB of quads
constexpr int64_t kFewQuads = kFewBlocks / 4 * kT5Quads;

// acc[t][16 g + r] = (a_sum ? -a_sum[t] : acc[t][16 g + r]) + the sum over a piece, for the 16 rows
// of each of `groups` groups from `first` on. Reads ahead what is unpacked next.
template <int groups, int tokens>
BITINFER_SYMBOL void multiply_quads(const uint8_t* quads, int64_t count, int first, const int8_t* a,
                                    int64_t a_stride, const int32_t* a_sum, int32_t* acc,
                                    int64_t acc_stride, const uint8_t* next) {
  __m512i shift[groups], sum[tokens][groups];
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g) {
    shift[g] = load64(kT5Unpack.shift[first + g]);
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t)
      sum[t][g] =
          a_sum ? _mm512_set1_epi32(-a_sum[t]) : load64(acc + t * acc_stride + g * kGroupRows);
  }
  for (int64_t q = 0; q < count; ++q, a += 4) {
    prefetch(next + 64 * q);
    const __m512i quad = load64(quads + 64 * q);
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      const __m512i codes = spread_t5(quad, shift[g]);
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        int32_t four;
        __builtin_memcpy(&four, a + t * a_stride, 4);
        sum[t][g] = dot_add(sum[t][g], codes, fill_dot_words(four));
        keep_in_place(sum[t][g]);
      }
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g) {
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t)
      _mm512_storeu_si512(acc + t * acc_stride + g * kGroupRows, sum[t][g]);
  }
}

// The codes of K-blocks [0, blocks) of a tile, whole quads of 4 of them; returns how many quads.
BITINFER_INLINE int64_t unpack_quads(const uint8_t* tile, int64_t blocks, uint8_t* quads) {
  int64_t count = 0;
  for (int64_t b = 0; b < blocks; b += 4, tile += 4 * kT5BlockBytes) {
    __m512i quad[kT5Quads];
    t5_to_quads(tile, blocks - b < 4 ? static_cast<int>(blocks - b) : 4, quad);
    for (int q = 0; q < kT5Quads; ++q) _mm512_store_si512(quads + 64 * count++, quad[q]);
  }
  return count;
}

constexpr int kMostFewTokens = 40;  // up to so many it is faster than panels

// `tokens` at a time, of m >= 1.
template <int tokens = 8>
BITINFER_INLINE void gemm_few_t5(const uint8_t* tile, int64_t num_tiles, int64_t num_blocks,
                                 const int8_t* a, int64_t a_stride, const int32_t* a_sum, int64_t m,
                                 int32_t* acc, int64_t acc_stride) {
  alignas(64) uint8_t quads[kFewQuads * 64];
  for (int64_t t = 0; t < num_tiles; ++t, acc += kT5Rows) {
    for (int64_t block = 0; block < num_blocks; block += kFewBlocks) {
      const int64_t blocks = num_blocks - block < kFewBlocks ? num_blocks - block : kFewBlocks;
      const int64_t count = unpack_quads(tile, blocks, quads);
      tile += blocks * kT5BlockBytes;
      for_each_token_block<tokens>(0, m, [&](auto here, int64_t i) {
        constexpr int kTokens = decltype(here)::value;
        constexpr int kGroups = kTokens <= 6 ? 4 : 2;  // up to 24 vectors of sums
        for (int g = 0; g < 4; g += kGroups) {
          multiply_quads<kGroups, kTokens>(quads, count, g, a + i * a_stride + block * kT5BlockK,
                                           a_stride, block == 0 ? a_sum + i : nullptr,
                                           acc + i * acc_stride + g * kGroupRows, acc_stride, tile);
        }
      });
    }
  }
}
