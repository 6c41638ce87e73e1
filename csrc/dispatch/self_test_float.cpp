// Small random inputs through every float kernel of a row and of the scalar row, compared as bytes.
#include <cstring>
#include <sstream>
#include <vector>

#include "dispatch/random.h"
#include "dispatch/self_test.h"
#include "pack/format.h"
#include "util/aligned_buffer.h"

namespace bitinfer {
namespace {

constexpr int64_t kN = 83;  // two vectors of 32 lanes, one of 16, and a tail
constexpr int64_t kHeads = 3, kHeadDim = 20, kPaddedDim = 32;
constexpr int64_t kQueryRows = 7;
constexpr const char* kFloatNames[] = {"f32", "f16", "bf16"};
constexpr const char* kKvNames[] = {"f32", "f16", "int8"};

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

Floats zeros(int64_t count) { return Floats(static_cast<std::size_t>(count)); }

// What a kernel wrote, as bytes and in the order of its outputs.
class Output {
 public:
  template <typename T>
  Output& add(const T* data, int64_t count) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + count * static_cast<int64_t>(sizeof(T)));
    return *this;
  }
  template <typename T>
  Output& add(const std::vector<T>& data) {
    return add(data.data(), static_cast<int64_t>(data.size()));
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

// Keys and values of kKvBlock positions.
struct KvMemory {
  AlignedBuffer<float> k{kKvBlock * kHeadDim}, v{kKvBlock * kPaddedDim};  // as large as any type
  AlignedBuffer<float> k_scale{kKvBlock}, v_scale{kKvBlock};
  KvBlock block() { return {k.data(), v.data(), k_scale.data(), v_scale.data()}; }
};

class FloatSelfTest {
 public:
  FloatSelfTest(const FloatKernels& row, const FloatKernels& oracle) : row_(row), oracle_(oracle) {}

  std::string run() {
    check_linear();
    check_conversions();
    check_activations();
    check_attention();
    return difference_;
  }

 private:
  // Multiples of 2^-16 in ±8 with exponents spread downwards.
  Floats floats(int64_t count) {
    Floats x = zeros(count);
    for (float& value : x) {
      const auto bits = static_cast<int32_t>(random_());
      value =
          static_cast<float>(bits >> 12) * (1.0f / 65536.0f) / static_cast<float>(1 << (bits & 7));
    }
    return x;
  }
  Ints sums(int64_t count) {
    Ints x(static_cast<std::size_t>(count));
    for (int32_t& value : x) value = static_cast<int32_t>(random_()) >> 6;
    return x;
  }
  // `count` finite values of a type, as stored.
  std::vector<uint8_t> stored(FloatType type, int64_t count) {
    const Floats wide = floats(count);
    Output bytes;
    if (type == FloatType::kF32) return bytes.add(wide).bytes();
    for (const float value : wide) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      auto half = static_cast<uint16_t>(bits >> 16);  // bf16
      if (type == FloatType::kF16) {                  // any but infinity and NaN
        half = static_cast<uint16_t>(random_());
        if ((half & 0x7c00) == 0x7c00) half = static_cast<uint16_t>(half ^ 0x4000);
      }
      bytes.add(&half, 1);
    }
    return bytes.bytes();
  }

  // fn(kernels, output) on both rows.
  template <typename Fn>
  void compare(const std::string& kernel, const Fn& fn) {
    if (!difference_.empty()) return;
    Output got, expected;
    fn(row_, got);
    fn(oracle_, expected);
    for (std::size_t i = 0; i < expected.bytes().size(); ++i) {
      if (got.bytes()[i] == expected.bytes()[i]) continue;
      std::ostringstream text;
      text << kernel << ": expected " << int{expected.bytes()[i]} << ", got " << int{got.bytes()[i]}
           << " at byte " << i;
      difference_ = text.str();
      return;
    }
  }

  // fn(kernels, y) on both rows, y (count).
  template <typename Fn>
  void compare_floats(const std::string& kernel, int64_t count, const Fn& fn) {
    compare(kernel, [&](const FloatKernels& f, Output& out) {
      Floats y = zeros(count);
      fn(f, y.data());
      out.add(y);
    });
  }

  void check_linear();
  void check_conversions();
  void check_activations();
  void check_attention();
  void check_kv(int type);

  const FloatKernels& row_;
  const FloatKernels& oracle_;
  Random random_{2};
  std::string difference_;
};

void FloatSelfTest::check_linear() {
  const Floats x = floats(kN), w = floats(kN), bias = floats(kN);
  const Ints acc = sums(kN), low = sums(kN);
  compare_floats("rms_norm", kN, [&](const FloatKernels& f, float* y) {
    f.rms_norm(x.data(), w.data(), kN, 1e-5f, y);
  });
  compare_floats("layer_norm", kN,
                 [&](const FloatKernels& f, float* y) { f.layer_norm(x.data(), kN, 1e-5f, y); });
  for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
    compare_floats("scale", kN, [&](const FloatKernels& f, float* y) {
      f.scale(acc.data(), kN, 0.37f, 1.9f, b, y);
    });
    compare("scale_add", [&](const FloatKernels& f, Output& out) {
      Floats y = x;
      f.scale_add(acc.data(), kN, 0.37f, 1.9f, b, y.data());
      out.add(y);
    });
  }
  compare_floats("scale_head", kN, [&](const FloatKernels& f, float* y) {
    f.scale_head(acc.data(), low.data(), kN, 0.37f, w.data(), y);
  });
  for (int t = 0; t < 3; ++t) {
    const auto type = static_cast<FloatType>(t);
    const std::vector<uint8_t> scales = stored(type, kN);
    for (const int32_t* lo : {static_cast<const int32_t*>(nullptr), low.data()}) {
      compare(std::string("scale_rows_add ") + kFloatNames[t],
              [&](const FloatKernels& f, Output& out) {
                Floats y = x;
                f.scale_rows_add(acc.data(), lo, kN, 0.37f, scales.data(), type, y.data());
                out.add(y);
              });
    }
  }
  compare("rope", [&](const FloatKernels& f, Output& out) {
    Floats y(x.begin(), x.begin() + kHeads * kHeadDim);
    f.rope(y.data(), kHeads, kHeadDim, w.data(), bias.data());
    out.add(y);
  });
}

void FloatSelfTest::check_conversions() {
  constexpr int64_t kCodesBytes = 128;
  const Floats x = floats(kN);
  for (int t = 0; t < 3; ++t) {
    const auto type = static_cast<FloatType>(t);
    constexpr int64_t kRows = 5;
    const std::vector<uint8_t> rows = stored(type, kRows * kN);
    compare_floats(std::string("widen ") + kFloatNames[t], kN,
                   [&](const FloatKernels& f, float* y) { f.widen(rows.data(), type, kN, y); });
    compare_floats(std::string("dot_rows ") + kFloatNames[t], kRows,
                   [&](const FloatKernels& f, float* y) {
                     f.dot_rows(rows.data(), type, kRows, kN, x.data(), y);
                   });
  }
  for (const float levels : {127.0f, 128.0f}) {
    compare("quantize_i8", [&](const FloatKernels& f, Output& out) {
      std::vector<int8_t> codes(kCodesBytes, 1);
      int32_t sum = 0;
      const float scale = f.quantize_i8(x.data(), kN, kCodesBytes, levels, codes.data(), &sum);
      out.add(codes).add(&sum, 1).add(&scale, 1);
    });
  }
  compare("quantize_planes", [&](const FloatKernels& f, Output& out) {
    std::vector<int8_t> hi(kCodesBytes, 1), lo(kCodesBytes, 1);
    int32_t both[2] = {};
    const float scale = f.quantize_planes(x.data(), kN, kCodesBytes, hi.data(), lo.data(), both);
    out.add(hi).add(lo).add(both, 2).add(&scale, 1);
  });
}

void FloatSelfTest::check_activations() {
  Floats x = floats(kN);
  const Floats up = floats(kN);
  const float edges[] = {-88.0f, -87.3125f, -87.0f, -1e-30f, -0.0f, 88.0f, 88.375f, 89.0f};
  std::memcpy(x.data(), edges, sizeof(edges));
  compare_floats("exp", kN, [&](const FloatKernels& f, float* y) { f.exp(x.data(), kN, y); });
  compare_floats("relu2_mul", kN,
                 [&](const FloatKernels& f, float* y) { f.relu2_mul(x.data(), up.data(), kN, y); });
  compare_floats("silu_mul", kN,
                 [&](const FloatKernels& f, float* y) { f.silu_mul(x.data(), up.data(), kN, y); });
  compare_floats("gelu_mul", kN,
                 [&](const FloatKernels& f, float* y) { f.gelu_mul(x.data(), up.data(), kN, y); });
  compare_floats("divide", kN,
                 [&](const FloatKernels& f, float* y) { f.divide(up.data(), 1.7f, kN, y); });
  compare_floats("block_max", 2,
                 [&](const FloatKernels& f, float* y) { f.block_max(up.data(), kN, y); });
}

void FloatSelfTest::check_attention() {
  for (int type = 0; type < kNumKvTypes; ++type) check_kv(type);
  constexpr int64_t kRows = 18;  // more than a vector of them
  Floats part_m = floats(kRows), part_l = floats(kRows), part = floats(kRows * kPaddedDim);
  const Floats all_m = floats(kRows), all_l = floats(kRows), all = floats(kRows * kPaddedDim);
  compare("join_softmax", [&](const FloatKernels& f, Output& out) {
    Floats m = all_m, l = all_l, o = all;
    f.join_softmax({m.data(), l.data(), o.data(), kPaddedDim},
                   {part_m.data(), part_l.data(), part.data(), kPaddedDim}, kRows);
    out.add(m).add(l).add(o);
  });
}

void FloatSelfTest::check_kv(int type) {
  const std::string name = kKvNames[type];
  const Floats k = floats(kKvBlock * kHeadDim), v = floats(kKvBlock * kHeadDim);
  const auto fill = [&](const FloatKernels& f, KvMemory& memory) {
    for (int64_t pos = 0; pos < kKvBlock; ++pos)
      f.append_kv[type](memory.block(), pos, kHeadDim, k.data() + pos * kHeadDim,
                        v.data() + pos * kHeadDim);
  };
  compare("append_kv " + name, [&](const FloatKernels& f, Output& out) {
    KvMemory memory;
    fill(f, memory);
    out.add(memory.k.data(), kKvBlock * kHeadDim).add(memory.v.data(), kKvBlock * kPaddedDim);
    out.add(memory.k_scale.data(), kKvBlock).add(memory.v_scale.data(), kKvBlock);
  });
  KvMemory memory;
  fill(oracle_, memory);
  Floats q = floats(kQueryRows * kHeadDim), factors = zeros(kQueryRows);
  q[1] = 1e-33f;
  compare("prepare_query " + name, [&](const FloatKernels& f, Output& out) {
    Floats x = q;
    const float factor = f.prepare_query[type](x.data(), kHeadDim, 0.22f);
    out.add(x).add(&factor, 1);
  });
  for (int64_t r = 0; r < kQueryRows; ++r)
    factors[static_cast<std::size_t>(r)] =
        oracle_.prepare_query[type](q.data() + r * kHeadDim, kHeadDim, 0.22f);
  const int32_t first[kQueryRows] = {0, 0, 21, 63, 5, 5, 5};
  const int32_t seen[kQueryRows] = {1, 37, 37, kKvBlock, kKvBlock, kKvBlock, kKvBlock};
  const QueryRows rows{q.data(), kHeadDim, factors.data(), first, seen, kQueryRows};
  compare("attend_block " + name, [&](const FloatKernels& f, Output& out) {
    Floats m = zeros(kQueryRows), l = m, o = zeros(kQueryRows * kPaddedDim);
    f.attend_block[type](memory.block(), memory.k.data(), kHeadDim, rows,
                         {m.data(), l.data(), o.data(), kPaddedDim});
    out.add(m).add(l);
    for (int64_t r = 0; r < kQueryRows; ++r) out.add(o.data() + r * kPaddedDim, kHeadDim);
  });
}

}  // namespace

std::string compare_float_kernels(const FloatKernels& row, const FloatKernels& oracle) {
  return FloatSelfTest(row, oracle).run();
}

}  // namespace bitinfer
