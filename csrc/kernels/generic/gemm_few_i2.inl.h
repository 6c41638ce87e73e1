// GEMM of few tokens on i2: rows are read as they lie and met by all tokens. Included inside the
// anonymous namespaces of the rows that have vpdpbusd, after vnni_kernels.inl.h.
#pragma once

// acc[r][t * acc_stride] = sum_k c * a - a_sum[t], as i2_dot_lanes.
template <int rows, int tokens>
BITINFER_SYMBOL void i2_dot_tokens(const uint8_t* const* w, int64_t num_blocks, const int8_t* a,
                                   int64_t a_stride, const int32_t* a_sum, int32_t* const* acc,
                                   int64_t acc_stride) {
  const DotVec low = fill_dot_bytes(0x03);
  const DotVec mid = fill_dot_bytes(0x0c);
  DotVec sum1[tokens][rows], sum4[tokens][rows];
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) sum1[t][r] = sum4[t][r] = zero_words();
  }
  for (int64_t at = 0; at < num_blocks * kI2BlockBytes; at += kDotBytes) {
    // column of the vector's first code
    const int8_t* act = a + at / kI2BlockBytes * kI2BlockK + at % kI2BlockBytes;
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) prefetch(w[r] + at + prefetch_ahead<rows>(r));
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      DotVec x[tokens];
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) x[t] = load_dot(act + t * a_stride + 64 * g);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const DotVec bytes = load_dot(w[r] + at);
        const DotVec codes = and_dot(g < 2 ? bytes : shift_right_4(bytes), g % 2 ? mid : low);
#pragma GCC unroll 12
        for (int t = 0; t < tokens; ++t) {
          DotVec& sum = g % 2 ? sum4[t][r] : sum1[t][r];
          sum = dot_add(sum, codes, x[t]);
          keep_in_place(sum);
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t) {
    int32_t sums[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) sum1[t][r] = add_words(sum1[t][r], quarter_words(sum4[t][r]));
    sum_lanes<rows>(sum1[t], sums);
    for (int r = 0; r < rows; ++r) acc[r][t * acc_stride] = sums[r] - a_sum[t];
  }
}

// Rows from `rows` far-apart places side by side, `tokens` tokens at once.
template <int rows, int tokens>
BITINFER_INLINE void gemm_i2_streams(const uint8_t* w, int64_t n, int64_t num_blocks,
                                     const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                     int64_t m, int32_t* acc, int64_t acc_stride) {
  const int64_t stream_rows = n / rows;
  for (int64_t i = 0; i < stream_rows; ++i) {
    const uint8_t* row[rows];
    int32_t* out[rows];
    for (int r = 0; r < rows; ++r) {
      row[r] = w + (r * stream_rows + i) * num_blocks * kI2BlockBytes;
      out[r] = acc + r * stream_rows + i;
    }
    for_each_token_block<tokens>(0, m, [&](auto here, int64_t t) {
      int32_t* to[rows];
      for (int r = 0; r < rows; ++r) to[r] = out[r] + t * acc_stride;
      i2_dot_tokens<rows, decltype(here)::value>(row, num_blocks, a + t * a_stride, a_stride,
                                                 a_sum + t, to, acc_stride);
    });
  }
  if constexpr (rows > 1) {
    const int64_t done = stream_rows * rows;
    if (done < n)
      gemm_i2_streams<1, tokens>(w + done * num_blocks * kI2BlockBytes, n - done, num_blocks, a,
                                 a_stride, a_sum, m, acc + done, acc_stride);
  }
}

BITINFER_INLINE void gemm_few_i2(const uint8_t* w, int64_t n, int64_t num_blocks, const int8_t* a,
                                 int64_t a_stride, const int32_t* a_sum, int64_t m, int32_t* acc,
                                 int64_t acc_stride) {
  gemm_i2_streams<kFewI2.rows, kFewI2.tokens>(w, n, num_blocks, a, a_stride, a_sum, m, acc,
                                              acc_stride);
}
