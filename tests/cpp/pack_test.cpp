// Packing at every awkward shape with a guard page behind each buffer: exact bytes, exact way back,
// refusals.
#include "pack/pack.h"

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "expect.h"
#include "guarded_buffer.h"
#include "pack/checkpoint.h"
#include "ternary_oracle.h"

namespace bitinfer_test {
namespace {

using bitinfer::layout;
using bitinfer::packed_bytes;
using bitinfer::PackedTernary;
using bitinfer::Packing;
using bitinfer::round_up;

constexpr int64_t kMaxBytes = 1 << 20;

template <typename Call>
bool is_refused(Call call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

struct Buffers {
  GuardedBuffer weights{kMaxBytes};
  GuardedBuffer packed{kMaxBytes};
  GuardedBuffer other{kMaxBytes};
  GuardedBuffer scales{kMaxBytes};
};

// The bytes of an (n, k) matrix of random weights, by the plain loops of ternary_oracle.h.
std::vector<uint8_t> oracle_bytes(const int8_t* w, int64_t n, int64_t k, Packing packing) {
  TernaryMatrix m{round_up(n, layout(packing).tile_rows), round_up(k, layout(packing).block_k), {}};
  m.w.assign(static_cast<std::size_t>(m.rows * m.columns), 0);
  for (int64_t r = 0; r < n; ++r) {
    std::memcpy(m.w.data() + r * m.columns, w + r * k, static_cast<std::size_t>(k));
  }
  std::vector<uint8_t> bytes(static_cast<std::size_t>(packed_bytes(packing, n, k)), 0);
  encode(m, packing, bytes.data());
  return bytes;
}

void pack_then_unpack_is_exact(Buffers* b, int64_t n, int64_t k, Packing packing, Placement side) {
  Random random(static_cast<uint64_t>(n * 1000003 + k));
  const int64_t bytes = packed_bytes(packing, n, k);
  auto* w = reinterpret_cast<int8_t*>(b->weights.place(n * k, side));
  for (int64_t i = 0; i < n * k; ++i) w[i] = random_weight(is_binary(packing), &random);
  uint8_t* packed = b->packed.place(bytes, side);
  std::memset(packed, 0xff, static_cast<std::size_t>(bytes));
  bitinfer::pack(w, n, k, packing, packed, 3);
  const std::vector<uint8_t> expected = oracle_bytes(w, n, k, packing);
  EXPECT(std::memcmp(packed, expected.data(), expected.size()) == 0, "%s (%d, %d)",
         layout(packing).name, static_cast<int>(n), static_cast<int>(k));
  auto* back = reinterpret_cast<int8_t*>(b->other.place(n * k, side));
  const PackedTernary view{packing, n, k, packed};
  bitinfer::validate_packed(view, 2);
  bitinfer::unpack(view, back, 2);
  EXPECT(std::memcmp(w, back, static_cast<std::size_t>(n * k)) == 0, "%s (%d, %d)",
         layout(packing).name, static_cast<int>(n), static_cast<int>(k));
}

void repack_gives_the_bytes_of_pack(Buffers* b, int64_t n, int64_t k, Packing from, Packing to) {
  Random random(7);
  std::vector<int8_t> w(static_cast<std::size_t>(n * k));
  for (int8_t& weight : w) weight = random_weight(is_binary(from) || is_binary(to), &random);
  const std::vector<uint8_t> source = oracle_bytes(w.data(), n, k, from);
  uint8_t* packed = b->packed.place(packed_bytes(from, n, k), Placement::kFlushEnd);
  std::memcpy(packed, source.data(), source.size());
  uint8_t* out = b->other.place(packed_bytes(to, n, k), Placement::kFlushEnd);
  bitinfer::repack({from, n, k, packed}, to, out, 2);
  const std::vector<uint8_t> expected = oracle_bytes(w.data(), n, k, to);
  EXPECT(std::memcmp(out, expected.data(), expected.size()) == 0, "%s to %s", layout(from).name,
         layout(to).name);
}

// Every byte value in places all over the tiles: refused, or unpacked and packed again to the same
// byte.
void impossible_codes_are_refused(Buffers* b, int64_t n, int64_t k, Packing packing) {
  const int64_t bytes = packed_bytes(packing, n, k);
  uint8_t* packed = b->packed.place(bytes, Placement::kFlushEnd);
  auto* w = reinterpret_cast<int8_t*>(b->weights.place(n * k, Placement::kFlushEnd));
  uint8_t* again = b->other.place(bytes, Placement::kFlushEnd);
  std::vector<int8_t> ones(static_cast<std::size_t>(n * k), 1);
  bitinfer::pack(ones.data(), n, k, packing, packed, 1);
  int accepted = 0;
  for (int64_t at = 0; at < bytes; at += 29) {
    const uint8_t kept = packed[at];
    for (int value = 0; value < 256; ++value) {
      packed[at] = static_cast<uint8_t>(value);
      const PackedTernary view{packing, n, k, packed};
      if (is_refused([&] { bitinfer::validate_packed(view, 1); })) continue;
      ++accepted;
      bitinfer::unpack(view, w, 1);
      bitinfer::pack(w, n, k, packing, again, 1);
      EXPECT(std::memcmp(packed, again, static_cast<std::size_t>(bytes)) == 0, "%s: byte %d is %d",
             layout(packing).name, static_cast<int>(at), value);
    }
    packed[at] = kept;
  }
  EXPECT(accepted > bytes / 29, "%d bytes accepted", accepted);
}

void two_bit_checkpoints_are_read_in_bounds(Buffers* b, int64_t n, int64_t k, Packing packing) {
  Random random(11);
  const int64_t rows = bitinfer::ceil_div(n, 4);
  uint8_t* hf = b->weights.place(rows * k, Placement::kFlushEnd);
  std::memset(hf, 0x55, static_cast<std::size_t>(rows * k));  // weight 0 everywhere
  std::vector<int8_t> w(static_cast<std::size_t>(n * k), 0);
  for (int64_t i = 0; i < n * k; ++i) {
    const int code = random_weight(is_binary(packing), &random) + 1;
    const int64_t r = i / k;
    const int shift = static_cast<int>(2 * (r / rows));
    uint8_t& byte = hf[r % rows * k + i % k];
    byte = static_cast<uint8_t>((byte & ~(3 << shift)) | (code << shift));
    w[static_cast<std::size_t>(i)] = static_cast<int8_t>(code - 1);
  }
  uint8_t* packed = b->packed.place(packed_bytes(packing, n, k), Placement::kFlushEnd);
  bitinfer::pack_hf(hf, n, k, packing, packed, 2);
  const std::vector<uint8_t> expected = oracle_bytes(w.data(), n, k, packing);
  EXPECT(std::memcmp(packed, expected.data(), expected.size()) == 0, "%s (%d, %d)",
         layout(packing).name, static_cast<int>(n), static_cast<int>(k));
  hf[rows * k - 1] = static_cast<uint8_t>(hf[rows * k - 1] | 3);  // a row that exists
  EXPECT(is_refused([&] { bitinfer::pack_hf(hf, n, k, packing, packed, 2); }), "code 3");
}

void float_checkpoints_are_read_in_bounds(Buffers* b, int64_t n, int64_t k) {
  for (const bitinfer::FloatType type :
       {bitinfer::FloatType::kF32, bitinfer::FloatType::kF16, bitinfer::FloatType::kBF16}) {
    for (const int64_t shift : {0, 1}) {  // any alignment
      const int64_t bytes = n * k * bitinfer::float_bytes(type);
      uint8_t* source = b->weights.place(bytes, Placement::kFlushEnd, shift);
      for (int64_t i = 0; i < bytes; ++i)
        source[i] = static_cast<uint8_t>(i % 32);  // finite in all three types
      const bitinfer::FloatMatrix m{source, type, n, k};
      for (int p = 0; p < bitinfer::kNumPackings; ++p) {
        const auto packing = static_cast<Packing>(p);
        uint8_t* packed = b->packed.place(packed_bytes(packing, n, k), Placement::kFlushEnd);
        if (is_binary(packing)) {  // small ones of these numbers become 0
          EXPECT(n * k < 9 || is_refused([&] { bitinfer::pack_absmean(m, packing, packed, 2); }),
                 "zeros");
          continue;
        }
        const float scale = bitinfer::pack_absmean(m, packing, packed, 2);
        EXPECT(scale > 0, "scale %g", static_cast<double>(scale));
        bitinfer::validate_packed({packing, n, k, packed}, 1);
      }
      auto* codes =
          reinterpret_cast<int8_t*>(b->other.place(n * round_up(k, 64), Placement::kFlushEnd));
      auto* scales = reinterpret_cast<float*>(b->scales.place(4 * n, Placement::kFlushEnd));
      bitinfer::quantize_rows_i8(m, codes, scales, 2);
      for (int64_t i = 0; i < n * round_up(k, 64); ++i)
        EXPECT(codes[i] != -128, "code at %d", static_cast<int>(i));
    }
  }
}

void run() {
  Buffers b;
  for (int p = 0; p < bitinfer::kNumPackings; ++p) {
    const auto packing = static_cast<Packing>(p);
    for (const int64_t n : {1, 2, 31, 32, 33, 63, 64, 65}) {
      for (const int64_t k : {1, 2, 4, 5, 6, 23, 24, 25, 63, 64, 65, 255, 256, 257, 509, 640}) {
        pack_then_unpack_is_exact(&b, n, k, packing, Placement::kFlushStart);
        pack_then_unpack_is_exact(&b, n, k, packing, Placement::kFlushEnd);
        two_bit_checkpoints_are_read_in_bounds(&b, n, k, packing);
      }
    }
    pack_then_unpack_is_exact(&b, 65, 4001, packing, Placement::kFlushEnd);
    impossible_codes_are_refused(&b, 33, 29, packing);
    for (int q = 0; q < bitinfer::kNumPackings; ++q) {
      repack_gives_the_bytes_of_pack(&b, 67, 517, packing, static_cast<Packing>(q));
    }
  }
  for (const int64_t n : {1, 5, 65}) {
    for (const int64_t k : {1, 7, 63, 64, 65, 300}) float_checkpoints_are_read_in_bounds(&b, n, k);
  }
}

}  // namespace
}  // namespace bitinfer_test

int main() {
  bitinfer_test::run();
  return 0;
}
