// Packed blocks to int8 weights, with NEON: i2 with columns in the lanes, the others with rows
// there. Included inside the anonymous namespace of a row.
#pragma once

constexpr int64_t kRowLanes = 32;       // rows of a panel with rows in its lanes
constexpr int64_t kPanelColumns = 240;  // its columns: 10 blocks of t3, 48 of t5, 30 of b1

inline void unpack_i2_block(const uint8_t* w, int8_t* columns) {
  const uint8x16_t low2 = vdupq_n_u8(3);
  const int8x16_t one = vdupq_n_s8(1);
  for (int p = 0; p < 64; p += 16) {
    const uint8x16_t bytes = vld1q_u8(w + p);
    vst1q_s8(columns + p, vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, low2)), one));
    vst1q_s8(columns + 64 + p,
             vsubq_s8(vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 2), low2)), one));
    vst1q_s8(columns + 128 + p,
             vsubq_s8(vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 4), low2)), one));
    vst1q_s8(columns + 192 + p, vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6)), one));
  }
}

// The balanced-ternary digit of v at `power`: 1 above half of it, -1 below minus half; v keeps the
// rest.
inline int8x16_t take_digit(int8x16_t* v, int8_t power) {
  const int8x16_t half = vdupq_n_s8(static_cast<int8_t>((power - 1) / 2));
  const uint8x16_t above = vcgtq_s8(*v, half);
  const uint8x16_t below = vcltq_s8(*v, vnegq_s8(half));
  const int8x16_t digit = vreinterpretq_s8_u8(vsubq_u8(below, above));
  *v = vmlsq_s8(*v, digit, vdupq_n_s8(power));
  return digit;
}

// Magnitude and a mask of all ones where it is negative -> value.
inline int8x16_t apply_sign(uint8x16_t magnitude, uint8x16_t negative) {
  return vreinterpretq_s8_u8(vsubq_u8(veorq_u8(magnitude, negative), negative));
}

// 16 rows of a t3 block -> panel[24][kRowLanes].
inline void unpack_t3_rows16(const uint8_t* w, int8_t* panel) {
  const uint8x16_t sign_bits = vld1q_u8(w + 128);
  for (int j = 0; j < 8; ++j) {
    const uint8x16_t pair = vld1q_u8(w + 32 * (j / 2));
    const uint8x16_t magnitude = j % 2 == 0 ? vandq_u8(pair, vdupq_n_u8(15)) : vshrq_n_u8(pair, 4);
    int8x16_t v =
        apply_sign(magnitude, vtstq_u8(sign_bits, vdupq_n_u8(static_cast<uint8_t>(0x80 >> j))));
    int8_t* columns = panel + 3 * j * kRowLanes;
    vst1q_s8(columns, take_digit(&v, 9));
    vst1q_s8(columns + kRowLanes, take_digit(&v, 3));
    vst1q_s8(columns + 2 * kRowLanes, v);
  }
}

// 16 rows of a t5 block -> panel[5][kRowLanes].
inline void unpack_t5_rows16(const uint8_t* w, int8_t* panel) {
  const uint8x16_t bytes = vld1q_u8(w);
  const uint8x16_t negative = vcltzq_s8(vreinterpretq_s8_u8(bytes));
  int8x16_t v = apply_sign(vandq_u8(bytes, vdupq_n_u8(0x7f)), negative);
  vst1q_s8(panel, take_digit(&v, 81));
  vst1q_s8(panel + kRowLanes, take_digit(&v, 27));
  vst1q_s8(panel + 2 * kRowLanes, take_digit(&v, 9));
  vst1q_s8(panel + 3 * kRowLanes, take_digit(&v, 3));
  vst1q_s8(panel + 4 * kRowLanes, v);
}

// 16 rows of a b1 block -> panel[8][kRowLanes].
inline void unpack_b1_rows16(const uint8_t* w, int8_t* panel) {
  const uint8x16_t bits = vld1q_u8(w);
  const uint8x16_t one = vdupq_n_u8(1);
  for (int i = 0; i < 8; ++i, panel += kRowLanes) {
    const uint8x16_t plus = vtstq_u8(bits, vdupq_n_u8(static_cast<uint8_t>(1 << i)));
    vst1q_s8(panel, vreinterpretq_s8_u8(vornq_u8(one, plus)));  // all ones, -1, where not set
  }
}

template <Packing P>
inline void unpack_rows32(const uint8_t* w, int8_t* panel) {
  for (int half = 0; half < 2; ++half) {
    if constexpr (P == Packing::kT3) {
      unpack_t3_rows16(w + 16 * half, panel + 16 * half);
    } else if constexpr (P == Packing::kT5) {
      unpack_t5_rows16(w + 16 * half, panel + 16 * half);
    } else {
      unpack_b1_rows16(w + 16 * half, panel + 16 * half);
    }
  }
}
