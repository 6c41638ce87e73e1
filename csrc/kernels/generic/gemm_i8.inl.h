// int8 x int8 for the head: rows of w from far-apart places side by side, all tokens in turn while
// the rows are in the first-level cache.
//
//   acc[m][n] = sum_k w[n][k] * a[m][k]
//
// Needs DotShapes kFewHead and kBatchHead of the row, and its dot_rows<rows, tokens,
// ahead>(w, a, a_stride, a_sum, k, acc, acc_stride): w[r] points at a row, of which it prefetches
// `ahead` bytes ahead, acc[r] at its sum for the first token. Included inside the anonymous
// namespace of a row, after token_blocks.inl.h.
#pragma once

// Of several passes over the same rows the first fetches `ahead` bytes of those that come next, and
// the others the rest: else the memory would rest in them.
template <int rows, int ahead>
BITINFER_INLINE void fetch_next_rows(const int8_t* const* w, int64_t k_padded, int64_t pass,
                                     int64_t passes) {
  const int64_t part = ceil_div(k_padded - ahead, passes - 1);
  const int64_t begin = k_padded + ahead + (pass - 1) * part;
  for (int64_t at = begin; at < begin + part; at += 64) {
    for (int r = 0; r < rows; ++r) prefetch(reinterpret_cast<const uint8_t*>(w[r]) + at);
  }
}

template <int rows, int tokens, int ahead>
BITINFER_INLINE void gemm_i8_rows(const int8_t* const* w, const int8_t* a, int64_t a_stride,
                                  const int32_t* a_sum, int64_t m, int64_t k_padded,
                                  int32_t* const* acc, int64_t acc_stride) {
  const int64_t passes = ceil_div(m, tokens);
  int64_t pass = 0;
  for_each_token_block<tokens>(0, m, [&](auto here, int64_t i) {
    if (pass > 0) fetch_next_rows<rows, ahead>(w, k_padded, pass, passes);
    ++pass;
    int32_t* out[rows];
    for (int r = 0; r < rows; ++r) out[r] = acc[r] + i * acc_stride;
    dot_rows<rows, decltype(here)::value, ahead>(w, a + i * a_stride, a_stride, a_sum + i, k_padded,
                                                 out, acc_stride);
  });
}

template <int rows, int tokens, int ahead>
BITINFER_INLINE void gemm_i8_streams(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                                     const int32_t* a_sum, int64_t m, int64_t k_padded,
                                     int32_t* acc, int64_t acc_stride) {
  const int64_t stream_rows = n / rows;
  for (int64_t i = 0; i < stream_rows; ++i) {
    const int8_t* row[rows];
    int32_t* out[rows];
    for (int r = 0; r < rows; ++r) {
      row[r] = w + (r * stream_rows + i) * k_padded;
      out[r] = acc + r * stream_rows + i;
    }
    gemm_i8_rows<rows, tokens, ahead>(row, a, a_stride, a_sum, m, k_padded, out, acc_stride);
  }
  for (int64_t i = stream_rows * rows; i < n; ++i) {
    const int8_t* row = w + i * k_padded;
    int32_t* out = acc + i;
    gemm_i8_rows<1, tokens, ahead>(&row, a, a_stride, a_sum, m, k_padded, &out, acc_stride);
  }
}

BITINFER_INLINE void gemm_i8_by_rows(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                                     const int32_t* a_sum, int64_t m, int64_t k_padded,
                                     int32_t* acc, int64_t acc_stride) {
  assert(n >= 1 && m >= 1 && k_padded % 64 == 0);
  constexpr int kFewAhead = kBytesAhead / kFewHead.rows, kBatchAhead = kBytesAhead / kMaxStreams;
  if (m <= kFewHead.tokens)
    return gemm_i8_streams<kFewHead.rows, kFewHead.tokens, kFewAhead>(w, n, a, a_stride, a_sum, m,
                                                                      k_padded, acc, acc_stride);
  gemm_i8_streams<kBatchHead.rows, kBatchHead.tokens, kBatchAhead>(w, n, a, a_stride, a_sum, m,
                                                                   k_padded, acc, acc_stride);
}
