// Conversions of checkpoint tensors, in pieces of a row.
#include "pack/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "pack/pack.h"
#include "threads/thread_pool.h"
#include "util/atomic_min.h"
#include "util/check.h"

namespace bitinfer {
namespace {

constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();
constexpr int64_t kRun = 1024;  // floats converted at a time: 4 KB on the stack

float f32_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// IEEE half to single, subnormals, infinities and NaN included. Exact.
float f32_from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  // Half's exponent bias is 15, single's 127: shift into place and scale by 2^112; exact also for
  // subnormals.
  const float scaled = f32_from_bits(magnitude << 13) * 0x1p112f;
  const float value = magnitude >= 0x7c00u ? f32_from_bits(0x7f800000u | magnitude << 13) : scaled;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return f32_from_bits(bits | sign);
}

template <typename Bits, typename Convert>
void convert_run(const uint8_t* from, int64_t count, float* out, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, from + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
    out[i] = convert(bits);
  }
}

// Columns [col, col + count) of a row as fp32.
void read_run(const FloatMatrix& w, int64_t row, int64_t col, int64_t count, float* out) {
  const uint8_t* from = w.data + (row * w.k + col) * float_bytes(w.type);
  switch (w.type) {
    case FloatType::kF32:
      std::memcpy(out, from, static_cast<std::size_t>(count) * sizeof(float));
      break;
    case FloatType::kF16:
      convert_run<uint16_t>(from, count, out, f32_from_f16);
      break;
    case FloatType::kBF16:
      convert_run<uint16_t>(from, count, out,
                            [](uint16_t bits) { return f32_from_bits(uint32_t{bits} << 16); });
      break;
  }
}

// fn(values, col, count) over the runs of a row's columns [begin, end).
template <typename Fn>
void for_runs(const FloatMatrix& w, int64_t row, int64_t begin, int64_t end, const Fn& fn) {
  float values[kRun];
  for (int64_t col = begin; col < end; col += kRun) {
    const int64_t count = std::min(kRun, end - col);
    read_run(w, row, col, count, values);
    fn(values, col, count);
  }
}

void check_floats(const FloatMatrix& w) { check_packed_shape(w.n, w.k); }

// Throws for the first NaN or infinity of `row`, the first row where one was seen.
void refuse_non_finite(const FloatMatrix& w, int64_t row) {
  for_runs(w, row, 0, w.k, [&](const float* values, int64_t col, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      BITINFER_CHECK(std::isfinite(values[i]), "weights: expected finite numbers, got "
                                                   << values[i] << " at row " << row << ", column "
                                                   << col + i);
    }
  });
}

// max|w| of a row; NaN or infinity if the row holds one.
float row_absmax(const FloatMatrix& w, int64_t row) {
  uint32_t most = 0;  // magnitudes of floats order as their bits do, NaN above infinity
  for_runs(w, row, 0, w.k, [&](const float* values, int64_t, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, values + i, sizeof(bits));
      most = std::max(most, bits & 0x7fffffffu);
    }
  });
  return f32_from_bits(most);
}

// Sum of |w| of a row in double, in column order.
double row_abs_sum(const FloatMatrix& w, int64_t row) {
  double sum = 0.0;
  for_runs(w, row, 0, w.k, [&](const float* values, int64_t, int64_t count) {
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(std::fabs(values[i]));
  });
  return sum;
}

float absmean(const FloatMatrix& w, int num_threads) {
  std::vector<double> row_sums(static_cast<std::size_t>(w.n));
  parallel_for(resolve_num_threads(num_threads), 0, w.n, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      row_sums[static_cast<std::size_t>(row)] = row_abs_sum(w, row);
  });
  double sum = 0.0;
  for (int64_t row = 0; row < w.n; ++row) {
    const double row_sum = row_sums[static_cast<std::size_t>(row)];
    if (!std::isfinite(row_sum)) refuse_non_finite(w, row);
    sum += row_sum;
  }
  return static_cast<float>(sum / (static_cast<double>(w.n) * static_cast<double>(w.k)));
}

}  // namespace

FloatType float_type_from_name(const std::string& name) {
  if (name == "f32") return FloatType::kF32;
  if (name == "f16") return FloatType::kF16;
  BITINFER_CHECK(name == "bf16", "dtype: expected one of f32, f16, bf16, got " << name);
  return FloatType::kBF16;
}

FloatMatrix float_matrix(const uint8_t* data, int64_t num_bytes, const std::string& dtype,
                         int64_t n, int64_t k) {
  const FloatType type = float_type_from_name(dtype);
  check_packed_shape(n, k);
  BITINFER_CHECK(num_bytes == n * k * float_bytes(type),
                 "buffer: expected " << n * k * float_bytes(type) << " bytes for " << dtype << " ("
                                     << n << ", " << k << "), got " << num_bytes);
  return {data, type, n, k};
}

void pack_hf(const uint8_t* hf, int64_t n, int64_t k, Packing packing, uint8_t* packed,
             int num_threads) {
  const int64_t quarter = ceil_div(n, 4);
  std::atomic<int64_t> bad{kNowhere};
  const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                          int8_t* piece) {
    for (int64_t r = 0; r < num_rows; ++r) {
      const uint8_t* from = hf + (row + r) % quarter * k + col;
      const int shift = static_cast<int>((row + r) / quarter) * 2;
      int8_t* to = piece + r * kPieceStride;
      int most = 0;
      for (int64_t c = 0; c < num_cols; ++c) {
        const int code = (from[c] >> shift) & 3;
        most = std::max(most, code);
        to[c] = static_cast<int8_t>(code - 1);
      }
      if (most < 3) continue;
      take_min(bad, (row + r) * k + col + (std::find(to, to + num_cols, int8_t{2}) - to));
      std::memset(to, 1, static_cast<std::size_t>(num_cols));
    }
  };
  pack_pieces(source, n, k, packing, packed, num_threads);
  const int64_t at = bad;
  BITINFER_CHECK(at == kNowhere, "packed weights: expected codes 0 to 2, got 3 at row "
                                     << at / k << ", column " << at % k);
}

float pack_absmean(const FloatMatrix& w, Packing packing, uint8_t* packed, int num_threads) {
  check_floats(w);
  const float r = 1.0f / std::max(absmean(w, num_threads), 1e-5f);
  const auto source = [&](int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                          int8_t* piece) {
    for (int64_t i = 0; i < num_rows; ++i) {
      int8_t* to = piece + i * kPieceStride - col;
      for_runs(
          w, row + i, col, col + num_cols, [&](const float* values, int64_t at, int64_t count) {
            for (int64_t c = 0; c < count; ++c) {
              const float x =
                  values[c] *
                  r;  // half-even sends +-0.5 to 0, so rounding and clamping are two comparisons
              to[at + c] =
                  static_cast<int8_t>(static_cast<int>(x > 0.5f) - static_cast<int>(x < -0.5f));
            }
          });
    }
  };
  pack_pieces(source, w.n, w.k, packing, packed, num_threads);
  return 1.0f / r;
}

void quantize_rows_i8(const FloatMatrix& w, int8_t* codes, float* scales, int num_threads) {
  check_floats(w);
  const int64_t stride = round_up(w.k, 64);
  std::atomic<int64_t> bad_row{kNowhere};
  parallel_for(resolve_num_threads(num_threads), 0, w.n, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      int8_t* to = codes + row * stride;
      std::memset(to, 0, static_cast<std::size_t>(stride));
      const float absmax = row_absmax(w, row);
      if (!std::isfinite(absmax)) take_min(bad_row, row);
      const float r = 127.0f / absmax;
      const bool zero = !std::isfinite(r) || !std::isfinite(absmax);
      scales[row] = zero ? 0.0f : absmax / 127.0f;
      if (zero) continue;
      for_runs(w, row, 0, w.k, [&](const float* values, int64_t col, int64_t count) {
        for (int64_t c = 0; c < count; ++c) {
          constexpr float kMagic =
              12582912.0f;  // 1.5 * 2^23: adding it rounds half to even at the unit
          const float code = (values[c] * r + kMagic) - kMagic;
          to[col + c] =
              static_cast<int8_t>(static_cast<int>(std::min(std::max(code, -127.0f), 127.0f)));
        }
      });
    }
  });
  if (bad_row != kNowhere) refuse_non_finite(w, bad_row);
}

}  // namespace bitinfer
