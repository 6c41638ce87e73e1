// The ternary GEMVs and GEMMs of a row against plain loops.
#include "dispatch/dispatch.h"
#include "kernel_tester.h"

namespace bitinfer_test {
namespace {

TernaryMatrix make_matrix(Packing packing, int64_t tiles, int64_t k, Weights pattern,
                          Random* random) {
  TernaryMatrix m{tiles * layout(packing).tile_rows, round_up(k, layout(packing).block_k), {}};
  m.w.assign(static_cast<std::size_t>(m.rows * m.columns), 0);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < k; ++c) {
      const int w = pattern == Weights::kRandom ? random_weight(is_binary(packing), random)
                                                : static_cast<int>(pattern) - 2;
      m.w[static_cast<std::size_t>(r * m.columns + c)] = static_cast<int8_t>(w);
    }
  }
  return m;
}

// All lengths up to two blocks and one, primes, and the widths of real models.
std::vector<int64_t> lengths(int64_t block_k) {
  std::vector<int64_t> all;
  for (int64_t k = 1; k <= 2 * block_k + 1; k += quick && k > 9 && k < block_k - 9 ? 7 : 1)
    all.push_back(k);
  for (const int64_t k : {241, 509, 640, 2560, 6912}) all.push_back(k);
  for (const int64_t k : {1021, 2053, 3200, 5460, 6911, 8640}) {
    if (!quick) all.push_back(k);
  }
  return all;
}

}  // namespace

// The tables of blocks [0, blocks), built in two runs, which must write their own range only.
const uint8_t* KernelTester::make_tables(Packing packing, const int8_t* codes, int64_t blocks,
                                         const Mode& mode) {
  const int p = static_cast<int>(packing);
  if (!table_.build_tables[p]) return nullptr;
  const int64_t block_bytes = table_.table_bytes[p];
  expect_equal(block_bytes % 64, 0, 0);
  uint8_t* tables = place<uint8_t>(tables_, blocks * block_bytes, mode);
  const int64_t half = blocks / 2;
  table_.build_tables[p](codes, half, blocks, tables);
  for (int64_t i = 0; i < half * block_bytes; ++i) expect_equal(tables[i], kStale, i);
  const std::vector<uint8_t> upper(tables + half * block_bytes, tables + blocks * block_bytes);
  table_.build_tables[p](codes, 0, half, tables);
  expect_equal(std::memcmp(upper.data(), tables + half * block_bytes, upper.size()), 0, 0);
  return tables;
}

void KernelTester::check_gemv_call(Packing packing, GemvFamily family, const TernaryMatrix& m,
                                   const std::vector<int8_t>& codes, int64_t k, int num_streams,
                                   const Mode& mode, const std::vector<int32_t>& expected) {
  const int p = static_cast<int>(packing);
  const int64_t stream_rows = m.rows / num_streams;
  const int64_t stream_bytes =
      stream_rows / layout(packing).tile_rows * bitinfer::tile_bytes(packing, k);
  TileStreams streams{};
  streams.num_streams = num_streams;
  streams.tiles_per_stream = stream_rows / layout(packing).tile_rows;
  for (int s = 0; s < num_streams; ++s) {
    uint8_t* tiles = place<uint8_t>(weights_[s], stream_bytes, mode);
    const auto first = m.w.begin() + s * stream_rows * m.columns;
    encode({stream_rows, m.columns, {first, first + stream_rows * m.columns}}, packing, tiles);
    streams.tiles[s] = tiles;
    streams.acc[s] = place<int32_t>(acc_[s], stream_rows, mode, mode.acc_shift);
  }
  const int8_t* a = place_copy(codes_, codes, mode, mode.codes_shift);
  const bool addsub = family == GemvFamily::kAddsub;
  const uint8_t* tables = addsub ? make_tables(packing, a, num_blocks(packing, k), mode) : nullptr;
  (addsub ? table_.gemv_addsub : table_.gemv_dot)[p](streams, num_blocks(packing, k),
                                                     {a, sum_of(a, k), tables});
  for (int64_t r = 0; r < m.rows; ++r) {
    expect_equal(streams.acc[r / stream_rows][r % stream_rows],
                 expected[static_cast<std::size_t>(r)], r);
  }
}

void KernelTester::check_gemv(Packing packing, int64_t k, const Pattern& pattern) {
  const int num_streams = 1 + random_.below(k > 1200 ? 3 : kMaxStreams);
  const int64_t tiles = num_streams * (1 + random_.below(k > 1200 ? 2 : 3));
  const TernaryMatrix m = make_matrix(packing, tiles, k, pattern.weights, &random_);
  const std::vector<int8_t> codes =
      make_codes(1, k, activation_bytes(k), pattern.codes, -128, &random_);
  std::vector<int32_t> expected;
  for (int64_t r = 0; r < m.rows; ++r)
    expected.push_back(dot(m.w.data() + r * m.columns, codes.data(), k));
  for (const GemvFamily family : {GemvFamily::kAddsub, GemvFamily::kDot}) {
    for (const Mode& mode : kModes) {
      name_check("%s gemv_%s %s: K %lld, %d streams, %lld rows, pattern %d, placement %d",
                 isa_.c_str(), bitinfer::family_name(family), layout(packing).name,
                 static_cast<long long>(k), num_streams, static_cast<long long>(m.rows),
                 static_cast<int>(&pattern - kPatterns), static_cast<int>(&mode - kModes));
      check_gemv_call(packing, family, m, codes, k, num_streams, mode, expected);
    }
  }
}

void KernelTester::check_gemm(Packing packing, int64_t k, const Pattern& pattern) {
  const int64_t tiles = 1 + random_.below(packing == Packing::kI2 ? 9 : 2);
  const int64_t m = 1 + random_.below(static_cast<int>(kMaxM));
  const TernaryMatrix w = make_matrix(packing, tiles, k, pattern.weights, &random_);
  const int64_t a_stride = activation_bytes(k) + random_.below(3);
  const int64_t acc_stride = w.rows + random_.below(3);
  const std::vector<int8_t> codes = make_codes(m, k, a_stride, pattern.codes, -128, &random_);
  std::vector<int32_t> sums;
  for (int64_t i = 0; i < m; ++i) sums.push_back(sum_of(codes.data() + i * a_stride, k));
  for (const Mode& mode : kModes) {
    name_check("%s gemm %s: M %lld, %lld rows, K %lld, pattern %d, placement %d", isa_.c_str(),
               layout(packing).name, static_cast<long long>(m), static_cast<long long>(w.rows),
               static_cast<long long>(k), static_cast<int>(&pattern - kPatterns),
               static_cast<int>(&mode - kModes));
    uint8_t* packed = place<uint8_t>(weights_[0], tiles * bitinfer::tile_bytes(packing, k), mode);
    encode(w, packing, packed);
    const int64_t acc_count = (m - 1) * acc_stride + w.rows;
    int32_t* acc = place<int32_t>(acc_[0], acc_count, mode, mode.acc_shift);
    const int32_t untouched = acc[0];
    table_.gemm[static_cast<int>(packing)](
        packed, tiles, num_blocks(packing, k), place_copy(codes_, codes, mode, mode.codes_shift),
        a_stride, place_copy(sums_, sums, mode), m, acc, acc_stride,
        scratch_.place(bitinfer::kGemmScratchBytes, mode.placement));
    for (int64_t i = 0; i < acc_count; ++i) {
      const int64_t r = i % acc_stride;
      const int8_t* row = codes.data() + i / acc_stride * a_stride;
      expect_equal(acc[i], r < w.rows ? dot(w.w.data() + r * w.columns, row, k) : untouched, i);
    }
  }
}

void KernelTester::run_ternary() {
  for (int p = 0; p < bitinfer::kNumPackings; ++p) {
    const auto packing = static_cast<Packing>(p);
    for (const int64_t k : lengths(layout(packing).block_k)) {
      for (const Pattern& pattern : kPatterns) {
        if (is_binary(packing) && pattern.weights == Weights::kZero) continue;
        // Where time is short, short lengths meet the random pattern and one or two of the others
        // in turn.
        const int64_t i = &pattern - kPatterns;
        if (quick && k < 600 && i > 0 && i % 4 != k % 4) continue;
        check_gemv(packing, k, pattern);
        check_gemm(packing, k, pattern);
      }
    }
  }
}

}  // namespace bitinfer_test
