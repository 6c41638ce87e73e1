// What the tests of integer kernels share: how the buffers of a call lie, which values they hold,
// and how a difference is told.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "kernels/kernel_table.h"
#include "ternary_oracle.h"

namespace bitinfer_test {

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

inline bool quick = false;
inline int64_t num_checks = 0;
inline char current_check[200];

// Names what runs next: a fault or a difference is reported under this name.
__attribute__((format(printf, 1, 2))) inline void name_check(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::vsnprintf(current_check, sizeof(current_check), format, args);
  va_end(args);
  ++num_checks;
}

inline void expect_equal(int64_t got, int64_t expected, int64_t index) {
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

// (rows, stride) activations: k codes, zeros up to activation_bytes(k), bytes that nobody may use
// behind them.
inline std::vector<int8_t> make_codes(int64_t rows, int64_t k, int64_t stride, Codes pattern,
                                      int lowest, Random* random) {
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

inline int32_t sum_of(const int8_t* codes, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += codes[i];
  return sum;
}

// The checks of one row.
class KernelTester {
 public:
  KernelTester(const std::string& isa, const KernelTable& table) : isa_(isa), table_(table) {}

  void run_ternary();
  void run_int8();

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

}  // namespace bitinfer_test
