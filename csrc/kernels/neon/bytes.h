// Bytes of the NEON row, as generic/head_planes.inl.h wants them.
#pragma once

namespace bitinfer {
namespace neon {
namespace {

using ByteVec = uint8x16_t;
using WordVec = int32x4_t;
constexpr int kPlaneRows = 4;

inline void prefetch(const uint8_t* p) { __builtin_prefetch(p); }
inline ByteVec load_bytes(const uint8_t* p) { return vld1q_u8(p); }
inline void store_bytes(int8_t* p, ByteVec a) { vst1q_s8(p, vreinterpretq_s8_u8(a)); }
inline ByteVec fill_bytes(int x) { return vdupq_n_u8(static_cast<uint8_t>(x)); }
inline ByteVec add_bytes(ByteVec a, ByteVec b) { return vaddq_u8(a, b); }
inline ByteVec and_bytes(ByteVec a, ByteVec b) { return vandq_u8(a, b); }
inline ByteVec or_bytes(ByteVec a, ByteVec b) { return vorrq_u8(a, b); }
template <int n>
inline ByteVec shift_words_right(ByteVec a) {
  return vshrq_n_u8(a, n);
}
template <int n>
inline ByteVec shift_words_left(ByteVec a) {
  return vshlq_n_u8(a, n);
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
