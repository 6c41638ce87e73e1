// The int8 GEMM, the planes of the head and the memory roofline of a row against plain loops.
#include "kernel_tester.h"

namespace bitinfer_test {

void KernelTester::check_gemm_i8(int64_t k, int64_t n, int64_t m, const Pattern& pattern) {
  const int64_t k_padded = round_up(k, 64);
  const int64_t a_stride = activation_bytes(k) + random_.below(3);
  const int64_t acc_stride = n + random_.below(3);
  std::vector<int8_t> w(static_cast<std::size_t>(n * k_padded), 0);
  for (int64_t i = 0; i < n * k_padded; ++i) {
    const int any = random_.below(255) - 127;
    const int code =
        pattern.weights == Weights::kRandom ? any : 127 * (static_cast<int>(pattern.weights) - 2);
    w[static_cast<std::size_t>(i)] = static_cast<int8_t>(i % k_padded < k ? code : 0);
  }
  const std::vector<int8_t> a = make_codes(m, k, a_stride, pattern.codes, -127, &random_);
  std::vector<int32_t> sums;
  for (int64_t i = 0; i < m; ++i) sums.push_back(sum_of(a.data() + i * a_stride, k));
  for (const Mode& mode : kModes) {
    name_check("%s gemm_i8: M %lld, N %lld, K %lld, pattern %d, placement %d", isa_.c_str(),
               static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k),
               static_cast<int>(&pattern - kPatterns), static_cast<int>(&mode - kModes));
    const int64_t acc_count = (m - 1) * acc_stride + n;
    int32_t* acc = place<int32_t>(acc_[0], acc_count, mode, mode.acc_shift);
    const int32_t untouched = acc[0];
    table_.gemm_i8(place_copy(weights_[0], w, mode), n,
                   place_copy(codes_, a, mode, mode.codes_shift), a_stride,
                   place_copy(sums_, sums, mode), m, k_padded, acc, acc_stride);
    for (int64_t i = 0; i < acc_count; ++i) {
      const int64_t r = i % acc_stride;
      const int8_t* row = a.data() + i / acc_stride * a_stride;
      expect_equal(acc[i], r < n ? dot(w.data() + r * k_padded, row, k) : untouched, i);
    }
  }
}

void KernelTester::check_head_planes(int split_index, int64_t k, int64_t n,
                                     const Pattern& pattern) {
  const auto split = static_cast<bitinfer::HeadSplit>(split_index);
  const int64_t columns = round_up(k, 64), a_stride = activation_bytes(k) + random_.below(3);
  std::vector<int8_t> w(static_cast<std::size_t>(n * columns), 0);
  for (int64_t i = 0; i < n * columns; ++i) {
    const int code = pattern.weights == Weights::kRandom
                         ? random_.below(256) - 128
                         : 127 * (static_cast<int>(pattern.weights) - 2);
    if (i % columns < k) w[static_cast<std::size_t>(i)] = static_cast<int8_t>(code);
  }
  const std::vector<int8_t> a = make_codes(2, k, a_stride, pattern.codes, -127, &random_);
  const int64_t high_bytes = high_row_bytes(split, k), low_bytes = low_row_bytes(split, k);
  std::vector<uint8_t> high(static_cast<std::size_t>(n * high_bytes));
  std::vector<uint8_t> low(static_cast<std::size_t>(n * low_bytes));
  std::vector<int32_t> residual(static_cast<std::size_t>(n));
  split_head(split, w.data(), n, k, high.data(), low.data(), residual.data(), 1);
  std::vector<int8_t> h(w.size());
  for (std::size_t i = 0; i < w.size(); ++i)
    h[i] = static_cast<int8_t>((w[i] + 128) >> layout(split).low_bits);
  for (const Mode& mode : kModes) {
    name_check("%s head planes %s: N %lld, K %lld, pattern %d, placement %d", isa_.c_str(),
               layout(split).name, static_cast<long long>(n), static_cast<long long>(k),
               static_cast<int>(&pattern - kPatterns), static_cast<int>(&mode - kModes));
    int32_t* acc = place<int32_t>(acc_[0], 2 * n, mode, mode.acc_shift);
    const uint8_t* high_rows = place_copy(weights_[0], high, mode);
    const uint8_t* low_rows = place_copy(weights_[1], low, mode);
    table_.head_high[split_index](high_rows, n, k, place_copy(codes_, a, mode, mode.codes_shift),
                                  a_stride, acc);
    for (int64_t i = 0; i < 2 * n; ++i)
      expect_equal(acc[i], dot(h.data() + i % n * columns, a.data() + i / n * a_stride, k), i);
    for (int64_t r = 0; r < n; ++r) {
      int8_t* row = place<int8_t>(acc_[1], bitinfer::plane_columns(k), mode);
      table_.head_join[split_index](high_rows + r * high_bytes, low_rows + r * low_bytes, k, row);
      for (int64_t c = 0; c < columns; ++c)
        expect_equal(row[c], w[static_cast<std::size_t>(r * columns + c)], c);
    }
  }
}

void KernelTester::check_read_streams(int64_t lines, int num_streams) {
  std::vector<uint8_t> data(static_cast<std::size_t>(64 * lines * num_streams));
  uint32_t expected = 0;
  for (std::size_t i = 0; i < data.size(); i += 4) {
    const uint32_t word = random_();
    std::memcpy(data.data() + i, &word, 4);
    expected += word;
  }
  for (const Mode& mode : kModes) {
    name_check("%s read_streams: %lld lines, %d streams", isa_.c_str(),
               static_cast<long long>(lines), num_streams);
    const auto bytes = static_cast<int64_t>(data.size());
    expect_equal(table_.read_streams(place_copy(weights_[0], data, mode), bytes, num_streams),
                 expected, 0);
  }
}

void KernelTester::run_int8() {
  for (const int64_t k : {1, 63, 64, 65, 127, 128, 129, 640, 2560, 3200, 6911}) {
    for (const Pattern& pattern : kPatterns) {
      check_gemm_i8(k, 1 + random_.below(k > 1000 ? 9 : 33), 1 + random_.below(9), pattern);
      for (int split = 0; split < bitinfer::kNumHeadSplits; ++split)
        check_head_planes(split, k, 1 + random_.below(k > 1000 ? 9 : 33), pattern);
    }
  }
  for (int num_streams = 1; num_streams <= kMaxStreams; ++num_streams) {
    for (const int64_t lines : {1, 2, 3, 17, 64, 100}) check_read_streams(lines, num_streams);
  }
}

}  // namespace bitinfer_test
