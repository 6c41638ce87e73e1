// The inner loops on sdot: the micro-kernel of gemm.inl.h, the i2 GEMV and the head. Included
// inside the anonymous namespace of a row.
#pragma once

// Two sums a row, of the even and the odd 4 columns.
struct DotMicro {
  static constexpr int kTokens = 4;  // 16 sums, 4 vectors of weights, 1 of activations

  template <int tokens>
  static inline void run(const int8_t* panel, int64_t columns, const int8_t* a, int64_t a_stride,
                         int64_t rows, int32_t* acc, int64_t acc_stride, bool add) {
    int32x4_t sum[tokens][4];
    for (int t = 0; t < tokens; ++t) {
      for (int p = 0; p < 4; ++p) sum[t][p] = vdupq_n_s32(0);
    }
    for (int64_t k = 0; k < columns; k += kPairColumns, panel += kGroupRows * kPairColumns) {
      int8x16_t w[4];
      for (int p = 0; p < 4; ++p) w[p] = vld1q_s8(panel + 16 * p);
      for (int t = 0; t < tokens; ++t) {
        const int8x8_t eight = vld1_s8(a + t * a_stride + k);
        const int8x16_t x = vcombine_s8(eight, eight);
        for (int p = 0; p < 4; ++p) sum[t][p] = vdotq_s32(sum[t][p], w[p], x);
      }
    }
    for (int t = 0; t < tokens; ++t) {
      store_group(vpaddq_s32(sum[t][0], sum[t][1]), vpaddq_s32(sum[t][2], sum[t][3]), rows,
                  acc + t * acc_stride, add);
    }
  }
};

// acc = sum_k c * a - sum_k a. Codes of column groups 1 and 2 stay in place: sums of their own, 4
// and 16 times too large; 2^15 K-blocks of 4 * 16384 fit.
template <int count>
inline __attribute__((always_inline)) void i2_dot_lanes(const LaneGroup<count>& lanes,
                                                        int64_t num_blocks, const Activation& a) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(Packing::kI2)];
  const uint8_t* w[count];
  int32x4_t sum1[count], sum4[count], sum16[count];
  for (int r = 0; r < count; ++r) {
    w[r] = lanes.tile[r];
    sum1[r] = sum4[r] = sum16[r] = vdupq_n_s32(0);
  }
  const int8_t* act = a.codes;
  for (int64_t b = 0; b < num_blocks; ++b, act += kLayout.block_k) {
    for (int r = 0; r < count; ++r) __builtin_prefetch(w[r] + prefetch_ahead<count>(r));
    for (int part = 0; part < kLayout.block_bytes; part += 16) {
      int8x16_t x[4];
      for (int g = 0; g < 4; ++g) x[g] = vld1q_s8(act + 64 * g + part);
      for (int r = 0; r < count; ++r) {
        const uint8x16_t bytes = vld1q_u8(w[r] + part);
        const auto codes = [&](uint8_t mask) {
          return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(mask)));
        };
        sum1[r] = vdotq_s32(sum1[r], codes(0x03), x[0]);
        sum4[r] = vdotq_s32(sum4[r], codes(0x0c), x[1]);
        sum16[r] = vdotq_s32(sum16[r], codes(0x30), x[2]);
        sum1[r] = vdotq_s32(sum1[r], vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6)), x[3]);
      }
    }
    for (int r = 0; r < count; ++r) w[r] += kLayout.block_bytes;
  }
  for (int r = 0; r < count; ++r) {
    const int32x4_t sum = vsraq_n_s32(vsraq_n_s32(sum1[r], sum4[r], 2), sum16[r], 4);
    *lanes.acc[r] = vaddvq_s32(sum) - a.sum;
  }
}

// `rows` rows of the head times `tokens` tokens.
template <int rows, int tokens>
inline void head_rows(const int8_t* w, int64_t k, const int8_t* a, int64_t a_stride, int32_t* acc,
                      int64_t acc_stride) {
  int32x4_t sum[tokens][rows];
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) sum[t][r] = vdupq_n_s32(0);
  }
  for (int64_t at = 0; at < k; at += 16) {
    int8x16_t x[tokens];
    for (int t = 0; t < tokens; ++t) x[t] = vld1q_s8(a + t * a_stride + at);
    for (int r = 0; r < rows; ++r) {
      const int8x16_t weights = vld1q_s8(w + r * k + at);
      for (int t = 0; t < tokens; ++t) sum[t][r] = vdotq_s32(sum[t][r], weights, x[t]);
      if (at % 64 == 0) __builtin_prefetch(w + r * k + at + kBytesAhead / rows);
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) acc[t * acc_stride + r] = vaddvq_s32(sum[t][r]);
  }
}
