// The SIMD vocabulary of the float kernels, in plain C++; also its documentation: every
// <isa>/simd.h defines the same words with the same bits, in the same order.
//
// F32x16 and I32x16 are 16 lanes of float and int32, however wide the machine's registers are.
// Pointers need no alignment; a load or store touches exactly its elements. No fused
// multiply-add where a product is rounded.
#pragma once
#define BITINFER_SIMD 1

#include <cstdint>

namespace bitinfer {
namespace {

struct F32x16 {
  float v[16];
};
struct I32x16 {
  int32_t v[16];
};

struct I16x32 {
  int16_t v[32];
};
constexpr int kSumVectors = 1;  // vectors whose sums fit the registers, for 4 rows at a time

template <typename V, typename Fn>
inline V map_lanes(Fn fn) {
  V out;
  for (int i = 0; i < 16; ++i) out.v[i] = fn(i);
  return out;
}

inline float bits_to_f32(uint32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
inline uint32_t f32_to_bits(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  return bits;
}

// IEEE half to single: exact. Subnormals become normal by one exact multiplication.
inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(h & 0x7fffu) << 13;
  if (rest >= (0x7c00u << 13)) return bits_to_f32(sign | 0x7f800000u | rest);  // inf, NaN
  return bits_to_f32(sign | f32_to_bits(bits_to_f32(rest) * 0x1p112f));
}

// Single to half, round half to even, overflow to infinity, subnormals kept.
inline uint16_t f32_to_f16(float f) {
  const uint32_t bits = f32_to_bits(f), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((rest >> 13) & 0x3ffu));
  if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 2^16 or more
  if (rest < 0x38800000u) {  // below 2^-14: adding 0.5 leaves multiples of 2^-24 in the mantissa
    return static_cast<uint16_t>(sign | (f32_to_bits(bits_to_f32(rest) + 0.5f) - 0x3f000000u));
  }
  const uint32_t rounded = rest - (112u << 23) + 0xfffu + ((rest >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

// ---- loads, stores ----
inline F32x16 zero_f32() { return F32x16{}; }
inline I32x16 zero_i32() { return I32x16{}; }
inline F32x16 set_f32(float x) {
  return map_lanes<F32x16>([=](int) { return x; });
}
inline F32x16 load_f32(const float* p) {
  F32x16 x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
inline F32x16 load_f16(const uint16_t* p) {  // exact
  return map_lanes<F32x16>([=](int i) { return f16_to_f32(p[i]); });
}
inline F32x16 load_bf16(const uint16_t* p) {  // exact
  return map_lanes<F32x16>([=](int i) { return bits_to_f32(static_cast<uint32_t>(p[i]) << 16); });
}
inline I32x16 load_i32(const int32_t* p) {
  I32x16 x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
inline I32x16 load_i8(const int8_t* p) {  // sign-extended
  return map_lanes<I32x16>([=](int i) { return static_cast<int32_t>(p[i]); });
}
inline I16x32 widen_i8(const int8_t* p) {
  I16x32 x;
  for (int i = 0; i < 32; ++i) x.v[i] = p[i];
  return x;
}
inline I16x32 set_pair(const void* p) {  // two int16, 16 times
  I16x32 x;
  for (int i = 0; i < 16; ++i) __builtin_memcpy(x.v + 2 * i, p, 4);
  return x;
}
inline void store_f32(float* p, F32x16 x) { __builtin_memcpy(p, &x, sizeof(x)); }
inline void store_f16(uint16_t* p, F32x16 x) {  // round half to even
  for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(x.v[i]);
}
inline void store_i8(int8_t* p, I32x16 x) {  // lanes are in -128..127
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(x.v[i]);
}
inline void store_i16(int16_t* p, I32x16 x) {  // lanes are in -32768..32767
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(x.v[i]);
}

// ---- arithmetic, each rounded once ----
inline F32x16 operator+(F32x16 a, F32x16 b) {
  return map_lanes<F32x16>([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return map_lanes<F32x16>([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return map_lanes<F32x16>([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return map_lanes<F32x16>([&](int i) { return a.v[i] / b.v[i]; });
}
// sum + a · b where the product is exact in fp32: fused or not, the bits are the same.
inline F32x16 add_exact_product(F32x16 sum, F32x16 a, F32x16 b) { return sum + a * b; }
// a > b ? x : y in each lane; false where a or b is NaN.
inline F32x16 select_gt(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return map_lanes<F32x16>([&](int i) { return a.v[i] > b.v[i] ? x.v[i] : y.v[i]; });
}
inline F32x16 max(F32x16 a, F32x16 b) { return select_gt(a, b, a, b); }  // b where either is NaN
inline F32x16 min(F32x16 a, F32x16 b) { return select_gt(b, a, a, b); }  // b where either is NaN
inline F32x16 abs(F32x16 a) {
  return map_lanes<F32x16>([&](int i) { return bits_to_f32(f32_to_bits(a.v[i]) & 0x7fffffffu); });
}
inline I32x16 operator+(I32x16 a, I32x16 b) {
  return map_lanes<I32x16>([&](int i) { return a.v[i] + b.v[i]; });
}
// sum[i] + a[2 i] · b[2 i] + a[2 i + 1] · b[2 i + 1]
inline I32x16 add_pair_products(I32x16 sum, I16x32 a, I16x32 b) {
  return map_lanes<I32x16>(
      [&](int i) { return sum.v[i] + a.v[2 * i] * b.v[2 * i] + a.v[2 * i + 1] * b.v[2 * i + 1]; });
}

// ---- conversions ----
inline F32x16 to_f32(I32x16 a) {  // round half to even
  return map_lanes<F32x16>([&](int i) { return static_cast<float>(a.v[i]); });
}
inline I32x16 round_i32(F32x16 a) {  // round half to even; |a| < 2^22, other lanes give any value
  return map_lanes<I32x16>([&](int i) {
    const uint32_t bits =
        f32_to_bits(a.v[i] + 0x1.8p23f);  // the mantissa's low bits are the integer
    return static_cast<int32_t>(bits - 0x4b400000u);
  });
}
inline F32x16 exp2_i32(I32x16 n) {  // 2^n for n in -126..127, other lanes give any value
  return map_lanes<F32x16>(
      [&](int i) { return bits_to_f32((static_cast<uint32_t>(n.v[i]) + 127u) << 23); });
}
// a = 128 hi + lo with |lo| < 128, both of a's sign.
inline void split_planes(I32x16 a, I32x16* hi, I32x16* lo) {
  for (int i = 0; i < 16; ++i) {
    hi->v[i] = a.v[i] / 128;
    lo->v[i] = a.v[i] % 128;
  }
}
// float(128 hi + lo), the sum exact, rounded once.
inline F32x16 join_planes(I32x16 hi, I32x16 lo) {
  return map_lanes<F32x16>(
      [&](int i) { return static_cast<float>(static_cast<int64_t>(hi.v[i]) * 128 + lo.v[i]); });
}

// ---- over the lanes ----
// l[i] + l[i + 8], then + 4, + 2, + 1: the one order in which 16 partial sums become one.
inline float fold_add(F32x16 a) {
  for (int half = 8; half; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] + a.v[i + half];
  }
  return a.v[0];
}
inline float fold_max(F32x16 a) {  // lanes are not NaN
  for (int half = 8; half; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  }
  return a.v[0];
}
inline int32_t sum_i32(I32x16 a) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += a.v[i];
  return sum;
}

}  // namespace
}  // namespace bitinfer
