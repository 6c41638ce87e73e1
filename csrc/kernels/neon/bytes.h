// Bytes of the NEON row, as generic/head_planes.inl.h and the b1 kernels want them.
#pragma once

namespace bitinfer {
namespace neon {
namespace {

using ByteVec = uint8x16_t;
using WordVec = int32x4_t;
constexpr int kPlaneRows = 4;

inline void prefetch(const uint8_t* p) { __builtin_prefetch(p); }
inline ByteVec load_bytes(const uint8_t* p) { return vld1q_u8(p); }
inline void store_bytes(void* p, ByteVec a) { vst1q_u8(static_cast<uint8_t*>(p), a); }
inline ByteVec fill_bytes(int x) { return vdupq_n_u8(static_cast<uint8_t>(x)); }
inline ByteVec add_bytes(ByteVec a, ByteVec b) { return vaddq_u8(a, b); }
inline ByteVec and_bytes(ByteVec a, ByteVec b) { return vandq_u8(a, b); }
inline ByteVec or_bytes(ByteVec a, ByteVec b) { return vorrq_u8(a, b); }
template <int n>
inline ByteVec shift_words_right(ByteVec a) {
  return vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(a), n));
}
template <int n>
inline ByteVec shift_words_left(ByteVec a) {
  return vreinterpretq_u8_u16(vshlq_n_u16(vreinterpretq_u16_u8(a), n));
}
template <int n>
inline ByteVec shift_words_right_signed(ByteVec a) {
  return vreinterpretq_u8_s16(vshrq_n_s16(vreinterpretq_s16_u8(a), n));
}
inline ByteVec fill_words16(int16_t x) { return vreinterpretq_u8_s16(vdupq_n_s16(x)); }
inline ByteVec add_words16(ByteVec a, ByteVec b) {
  return vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
}
inline ByteVec subtract_words16(ByteVec a, ByteVec b) {
  return vreinterpretq_u8_u16(vsubq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
}

// A table of 16 entries; indices 0..15.
inline ByteVec load_table(const uint8_t* p) { return vld1q_u8(p); }
inline ByteVec look_up(ByteVec table, ByteVec index) { return vqtbl1q_u8(table, index); }

// The low bytes of 16 words of two tables, one table behind the other.
inline void store_table_pair(const ByteVec* low, const ByteVec* high, uint8_t* tables) {
  vst1q_u8(tables, vuzp1q_u8(low[0], low[1]));
  vst1q_u8(tables + 16, vuzp1q_u8(high[0], high[1]));
}

inline WordVec zero_words() { return vdupq_n_s32(0); }
inline void keep_order(WordVec&) {}

// Four products of at most 63 * 127 stay below 2^15.
inline WordVec add_products(WordVec sum, ByteVec u0, ByteVec x0, ByteVec u1, ByteVec x1) {
  const int8x16_t c0 = vreinterpretq_s8_u8(u0), a0 = vreinterpretq_s8_u8(x0);
  const int8x16_t c1 = vreinterpretq_s8_u8(u1), a1 = vreinterpretq_s8_u8(x1);
  int16x8_t pairs = vmull_s8(vget_low_s8(c0), vget_low_s8(a0));
  pairs = vmlal_high_s8(pairs, c0, a0);
  pairs = vmlal_s8(pairs, vget_low_s8(c1), vget_low_s8(a1));
  pairs = vmlal_high_s8(pairs, c1, a1);
  return vpadalq_s16(sum, pairs);
}

template <int count>
inline void sum_lanes(const WordVec* v, int32_t* out) {
  for (int i = 0; i < count; ++i) out[i] = vaddvq_s32(v[i]);
}

}  // namespace
}  // namespace neon
}  // namespace bitinfer
