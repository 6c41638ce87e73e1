// Every integer kernel of every row that this CPU can run against plain loops, each buffer against
// a guard page.
//
//   kernel_test [--quick] [ISA ...]     --quick: fewer sizes, for emulators
//   kernel_test --rows                  only prints the rows
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "dispatch/dispatch.h"
#include "guarded_buffer.h"
#include "kernels/kernel_table.h"
#include "ternary_oracle.h"

namespace bitinfer_test {
namespace {

using bitinfer::Activation;
using bitinfer::activation_bytes;
using bitinfer::GemvFamily;
using bitinfer::KernelTable;
using bitinfer::kMaxStreams;
using bitinfer::layout;
using bitinfer::num_blocks;
using bitinfer::Packing;
using bitinfer::round_up;
using bitinfer::TileStreams;

constexpr int64_t kMaxK = 8640;
constexpr int64_t kMaxM = 20;
constexpr uint8_t kStale = 0x5a;  // what outputs hold before a call

bool quick = false;
int64_t num_checks = 0;
char current_check[200];

// Names what runs next: a fault or a difference is reported under this name.
__attribute__((format(printf, 1, 2))) void name_check(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::vsnprintf(current_check, sizeof(current_check), format, args);
  va_end(args);
  ++num_checks;
}

extern "C" void report_fault(int) {
  const char text[] = "kernel_test: memory outside of a buffer touched by ";
  static_cast<void>(!write(STDERR_FILENO, text, sizeof(text) - 1));
  static_cast<void>(!write(STDERR_FILENO, current_check, std::strlen(current_check)));
  static_cast<void>(!write(STDERR_FILENO, "\n", 1));
  _exit(1);
}

void expect_equal(int64_t got, int64_t expected, int64_t index) {
  if (got == expected) return;
  std::fprintf(stderr, "kernel_test: %s: expected %lld, got %lld at %lld\n", current_check,
               static_cast<long long>(expected), static_cast<long long>(got),
               static_cast<long long>(index));
  std::exit(1);
}

// How the buffers of one call lie: against the lower guard, the upper guard, or off every alignment
// allowed.
struct Mode {
  Placement placement;
  int64_t codes_shift;
  int64_t acc_shift;
};
constexpr Mode kModes[] = {
    {Placement::kFlushStart, 0, 0}, {Placement::kFlushEnd, 0, 0}, {Placement::kFlushStart, 7, 4}};

enum class Weights { kRandom, kMinusOne, kZero, kPlusOne };
enum class Codes { kRandom, kLowest, kHighest, kZero };
struct Pattern {
  Weights weights;
  Codes codes;
};
constexpr Pattern kPatterns[] = {
    {Weights::kRandom, Codes::kRandom},   {Weights::kMinusOne, Codes::kLowest},
    {Weights::kPlusOne, Codes::kLowest},  {Weights::kMinusOne, Codes::kHighest},
    {Weights::kPlusOne, Codes::kHighest}, {Weights::kZero, Codes::kLowest},
    {Weights::kRandom, Codes::kLowest},   {Weights::kRandom, Codes::kZero},
};

TernaryMatrix make_matrix(Packing packing, int64_t tiles, int64_t k, Weights pattern,
                          Random* random) {
  TernaryMatrix m{tiles * layout(packing).tile_rows, round_up(k, layout(packing).block_k), {}};
  m.w.assign(static_cast<std::size_t>(m.rows * m.columns), 0);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < k; ++c) {
      const int w =
          pattern == Weights::kRandom ? random->below(3) - 1 : static_cast<int>(pattern) - 2;
      m.w[static_cast<std::size_t>(r * m.columns + c)] = static_cast<int8_t>(w);
    }
  }
  return m;
}

// (rows, stride) activations: k codes, zeros up to activation_bytes(k), bytes that nobody may use
// behind them.
std::vector<int8_t> make_codes(int64_t rows, int64_t k, int64_t stride, Codes pattern, int lowest,
                               Random* random) {
  std::vector<int8_t> codes(static_cast<std::size_t>(rows * stride), 0x55);
  for (int64_t i = 0; i < rows; ++i) {
    int8_t* row = codes.data() + i * stride;
    for (int64_t c = 0; c < activation_bytes(k); ++c) {
      int code = random->below(128 - lowest) + lowest;
      if (pattern == Codes::kLowest) code = lowest;
      if (pattern == Codes::kHighest) code = 127;
      row[c] = static_cast<int8_t>(c < k && pattern != Codes::kZero ? code : 0);
    }
  }
  return codes;
}

int32_t sum_of(const int8_t* codes, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += codes[i];
  return sum;
}

class KernelTester {
 public:
  KernelTester(const std::string& isa, const KernelTable& table) : isa_(isa), table_(table) {}

  void run();

 private:
  void check_gemv(Packing packing, int64_t k, const Pattern& pattern);
  void check_gemv_call(Packing packing, GemvFamily family, const TernaryMatrix& m,
                       const std::vector<int8_t>& codes, int64_t k, int num_streams,
                       const Mode& mode, const std::vector<int32_t>& expected);
  const uint8_t* make_tables(Packing packing, const int8_t* codes, int64_t blocks,
                             const Mode& mode);
  void check_gemm(Packing packing, int64_t k, const Pattern& pattern);
  void check_gemm_i8(int64_t k, int64_t n, int64_t m, const Pattern& pattern);
  void check_head_planes(int split, int64_t k, int64_t n, const Pattern& pattern);
  void check_read_streams(int64_t lines, int num_streams);

  // data, or the memory of a buffer of its size, at one side of `buffer`
  template <typename T>
  T* place(GuardedBuffer& buffer, int64_t count, const Mode& mode, int64_t shift = 0) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    uint8_t* at = buffer.place(bytes, mode.placement, shift);
    std::memset(at, kStale, static_cast<std::size_t>(bytes));
    return reinterpret_cast<T*>(at);
  }
  template <typename T>
  T* place_copy(GuardedBuffer& buffer, const std::vector<T>& data, const Mode& mode,
                int64_t shift = 0) {
    T* at = place<T>(buffer, static_cast<int64_t>(data.size()), mode, shift);
    std::memcpy(at, data.data(), data.size() * sizeof(T));
    return at;
  }

  std::string isa_;
  const KernelTable& table_;
  Random random_{20240214};
  // Streams of weights and of their sums; tiles of GEMM are stream 0.
  GuardedBuffer weights_[kMaxStreams] = {GuardedBuffer(kMaxWeights), GuardedBuffer(kMaxWeights),
                                         GuardedBuffer(kMaxWeights), GuardedBuffer(kMaxWeights),
                                         GuardedBuffer(kMaxWeights), GuardedBuffer(kMaxWeights),
                                         GuardedBuffer(kMaxWeights), GuardedBuffer(kMaxWeights)};
  GuardedBuffer acc_[kMaxStreams] = {GuardedBuffer(kMaxAcc), GuardedBuffer(kMaxAcc),
                                     GuardedBuffer(kMaxAcc), GuardedBuffer(kMaxAcc),
                                     GuardedBuffer(kMaxAcc), GuardedBuffer(kMaxAcc),
                                     GuardedBuffer(kMaxAcc), GuardedBuffer(kMaxAcc)};
  GuardedBuffer codes_{kMaxM * (kMaxK + 512)};
  GuardedBuffer sums_{4 * kMaxM};
  GuardedBuffer tables_{4 << 20};
  GuardedBuffer scratch_{bitinfer::kGemmScratchBytes};

  static constexpr int64_t kMaxWeights = 1 << 20;
  static constexpr int64_t kMaxAcc = 1 << 16;
};

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

// All lengths up to two blocks and one, primes, and the widths of real models.
std::vector<int64_t> lengths(int64_t block_k) {
  std::vector<int64_t> all;
  for (int64_t k = 1; k <= 2 * block_k + 1; k += quick && k > 9 && k < block_k - 9 ? 7 : 1)
    all.push_back(k);
  for (const int64_t k : {241, 509, 640, 1021, 2560}) all.push_back(k);
  all.push_back(5460);
  for (const int64_t k : {2053, 3200, 6911, 6912, 8640}) {
    if (!quick || k == 3200 || k == 6912) all.push_back(k);
  }
  return all;
}

void KernelTester::run() {
  for (int p = 0; p < bitinfer::kNumPackings; ++p) {
    const auto packing = static_cast<Packing>(p);
    for (const int64_t k : lengths(layout(packing).block_k)) {
      for (const Pattern& pattern : kPatterns) {
        // Where time is short, short lengths meet the random pattern and one or two of the others
        // in turn.
        const int64_t i = &pattern - kPatterns;
        if (quick && k < 600 && i > 0 && i % 4 != k % 4) continue;
        check_gemv(packing, k, pattern);
        check_gemm(packing, k, pattern);
      }
    }
  }
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

}  // namespace
}  // namespace bitinfer_test

int main(int argc, char** argv) {
  using namespace bitinfer_test;
  std::signal(SIGSEGV, report_fault);
  std::signal(SIGBUS, report_fault);
  std::vector<std::string> isas;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else if (std::strcmp(argv[i], "--rows") == 0) {
      for (const std::string& isa : bitinfer::available_isas()) std::printf("%s\n", isa.c_str());
      return 0;
    } else {
      isas.push_back(argv[i]);
    }
  }
  if (isas.empty()) isas = bitinfer::available_isas();
  for (const std::string& isa : isas) {
    const int64_t before = num_checks;
    KernelTester(isa, bitinfer::table_of(isa)).run();
    std::printf("%s: %lld checks\n", isa.c_str(), static_cast<long long>(num_checks - before));
    std::fflush(stdout);
  }
  return 0;
}
