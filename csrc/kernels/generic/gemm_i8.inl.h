// int8 x int8 for the head: rows of w from far-apart places side by side, all tokens in turn while
// the rows are in the first-level cache.
//
//   acc[m][n] = sum_k w[n][k] * a[m][k]
//
// Needs kHeadRows, kHeadTokens and dot_rows<rows, tokens>(w, a, a_stride, a_sum, k, acc,
// acc_stride) of the row: w[r] points at a row, acc[r] at its sum for the first token. Included
// inside the anonymous namespace of a row.
#pragma once

template <int rows>
BITINFER_INLINE void gemm_i8_rows(const int8_t* const* w, const int8_t* a, int64_t a_stride,
                                  const int32_t* a_sum, int64_t m, int64_t k_padded,
                                  int32_t* const* acc, int64_t acc_stride) {
  int64_t i = 0;
  int32_t* out[rows];
  for (int r = 0; r < rows; ++r) out[r] = acc[r];
  for (; i + kHeadTokens <= m; i += kHeadTokens) {
    dot_rows<rows, kHeadTokens>(w, a + i * a_stride, a_stride, a_sum + i, k_padded, out,
                                acc_stride);
    for (int r = 0; r < rows; ++r) out[r] += kHeadTokens * acc_stride;
  }
  for (; i < m; ++i) {
    dot_rows<rows, 1>(w, a + i * a_stride, a_stride, a_sum + i, k_padded, out, acc_stride);
    for (int r = 0; r < rows; ++r) out[r] += acc_stride;
  }
}

BITINFER_INLINE void gemm_i8_by_rows(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                                     const int32_t* a_sum, int64_t m, int64_t k_padded,
                                     int32_t* acc, int64_t acc_stride) {
  assert(n >= 1 && m >= 1 && k_padded % 64 == 0);
  const int64_t stream_rows = n / kHeadRows;
  for (int64_t i = 0; i < stream_rows; ++i) {
    const int8_t* rows[kHeadRows];
    int32_t* out[kHeadRows];
    for (int r = 0; r < kHeadRows; ++r) {
      rows[r] = w + (r * stream_rows + i) * k_padded;
      out[r] = acc + r * stream_rows + i;
    }
    gemm_i8_rows<kHeadRows>(rows, a, a_stride, a_sum, m, k_padded, out, acc_stride);
  }
  for (int64_t i = stream_rows * kHeadRows; i < n; ++i) {
    const int8_t* row = w + i * k_padded;
    int32_t* out = acc + i;
    gemm_i8_rows<1>(&row, a, a_stride, a_sum, m, k_padded, &out, acc_stride);
  }
}
