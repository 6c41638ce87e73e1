// gemv_columns of the rows that have vpdpbusd, after chosen_rows.inl.h: the bytes of four columns
// are interleaved, so that a 32-bit lane holds the same four matrix rows of each, and one
// instruction adds the four products of a row. Included inside their anonymous namespaces.
//
// Interleaving takes the low or the high 8 bytes of every 16 (a half), its words the low or high 4
// of these: sums stay in that order in `scratch`, and those of column groups 1 and 3, whose codes
// stay in bits 3..2, 4 times too large, until all columns are added up (2^21 of them fit).
#pragma once

constexpr int kWordLanes = kDotBytes / 4;
constexpr int kHalfSums = 8 * kWordLanes;  // of half a vector of bytes

template <int half>
BITINFER_INLINE void add_column_quads(const Columns& columns, int64_t offset, int32_t* scratch) {
  const DotVec low = fill_dot_bytes(0x03);
  const DotVec mid = fill_dot_bytes(0x0c);
  DotVec sum[8];
  for (int i = 0; i < 8; ++i) sum[i] = load_dot(scratch + i * kWordLanes);
#pragma GCC unroll 2
  for (int q = 0; q < kColumns; q += 4) {
    const uint8_t* const* w = columns.w + q;
    const DotVec ab = interleave_bytes<half>(load_dot(w[0] + offset), load_dot(w[1] + offset));
    const DotVec cd = interleave_bytes<half>(load_dot(w[2] + offset), load_dot(w[3] + offset));
    const DotVec abcd[2] = {interleave_words<0>(ab, cd), interleave_words<1>(ab, cd)};
    int32_t four;
    __builtin_memcpy(&four, columns.codes + q, 4);
    const DotVec x = fill_dot_words(four);
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const DotVec upper = shift_right_4(abcd[j]);
      sum[j] = dot_add(sum[j], and_dot(abcd[j], low), x);
      sum[j + 2] = dot_add(sum[j + 2], and_dot(abcd[j], mid), x);
      sum[j + 4] = dot_add(sum[j + 4], and_dot(upper, low), x);
      sum[j + 6] = dot_add(sum[j + 6], and_dot(upper, mid), x);
    }
  }
  for (int i = 0; i < 8; ++i) store_dot(scratch + i * kWordLanes, sum[i]);
}

// acc += the sums of half a vector's codes - the sum of all activations: codes are weights + 1.
BITINFER_INLINE void add_half_sums(const int32_t* scratch, DotVec minus_sum, int32_t* acc) {
  for (int g = 0; g < 4; ++g, scratch += 2 * kWordLanes) {
    DotVec sum[2] = {load_dot(scratch), load_dot(scratch + kWordLanes)};
    for (DotVec& s : sum) s = add_words(g % 2 ? quarter_words(s) : s, minus_sum);
    add_to_eights(sum[0], sum[1], acc + 64 * g);
  }
}

BITINFER_INLINE void gemv_columns_by_quads(const ChosenRows& w, const int8_t* codes,
                                           int32_t* scratch, int32_t* acc) {
  assert(w.count >= 1 && w.num_blocks >= 1 && w.count < (1 << 21));
  const RowRuns runs{w};
  const int64_t bytes = w.num_blocks * kI2BlockBytes;
  for (int64_t i = 0; i < 4 * bytes; i += kWordLanes) store_dot(scratch + i, zero_words());
  int32_t code_sum = 0;
  for (int64_t i = 0; i < runs.run; ++i) {
    const Columns columns = take_columns(runs, codes, i);
    code_sum += columns.sum;
    int32_t* sums = scratch;
    for (int64_t offset = 0; offset < bytes; offset += kDotBytes, sums += 2 * kHalfSums) {
      if (offset % 64 == 0) {
        for (int c = 0; c < kColumns; ++c) columns.fetch(c, columns.w[c] + offset);
      }
      add_column_quads<0>(columns, offset, sums);
      add_column_quads<1>(columns, offset, sums + kHalfSums);
    }
  }
  const DotVec minus_sum = fill_dot_words(-code_sum);
  for (int64_t offset = 0; offset < bytes; offset += kDotBytes, scratch += 2 * kHalfSums) {
    int32_t* to = acc + offset / 64 * kI2BlockK + offset % 64;
    add_half_sums(scratch, minus_sum, to);
    add_half_sums(scratch + kHalfSums, minus_sum, to + 8);
  }
}
