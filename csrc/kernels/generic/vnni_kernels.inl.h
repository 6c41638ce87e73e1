// The inner loops of the rows that have vpdpbusd, on the vocabulary of their dot_words.h. Included
// inside their anonymous namespaces.
#pragma once

constexpr int64_t kI2BlockBytes = kLayouts[static_cast<int>(Packing::kI2)].block_bytes;
constexpr int64_t kI2BlockK = kLayouts[static_cast<int>(Packing::kI2)].block_k;

// acc = sum_k c * a - sum_k a. The codes of column groups 1 and 3 stay in bits 3..2, so that one
// shift a vector suffices: their sums are 4 times too large, in an accumulator of their own (2^15
// K-blocks of 2 * 4 * 1024 fit).
// fetch(r, block) prefetches for lane r while that block of it is read.
template <int count, typename Fetch>
BITINFER_INLINE void i2_dot_lanes(const LaneGroup<count>& lanes, int64_t num_blocks,
                                  const Activation& a, const Fetch& fetch) {
  const DotVec low = fill_dot_bytes(0x03);
  const DotVec mid = fill_dot_bytes(0x0c);
  const uint8_t* w[count];
  DotVec sum1[count], sum4[count];
  for (int r = 0; r < count; ++r) {
    w[r] = lanes.tile[r];
    sum1[r] = sum4[r] = zero_words();
  }
  const int8_t* act = a.codes;
  for (int64_t b = 0; b < num_blocks; ++b, act += kI2BlockK) {
    for (int r = 0; r < count; ++r) fetch(r, w[r]);
    for (int part = 0; part < kI2BlockBytes; part += kDotBytes) {
      DotVec x[4];
      for (int g = 0; g < 4; ++g) x[g] = load_dot(act + 64 * g + part);
      for (int r = 0; r < count; ++r) {
        const DotVec bytes = in_register(load_dot(w[r] + part));
        const DotVec upper = shift_right_4(bytes);
        sum1[r] = dot_add(sum1[r], and_dot(bytes, low), x[0]);
        sum4[r] = dot_add(sum4[r], and_dot(bytes, mid), x[1]);
        sum1[r] = dot_add(sum1[r], and_dot(upper, low), x[2]);
        sum4[r] = dot_add(sum4[r], and_dot(upper, mid), x[3]);
      }
    }
    for (int r = 0; r < count; ++r) w[r] += kI2BlockBytes;
  }
  int32_t sums[count];
  for (int r = 0; r < count; ++r) sum1[r] = add_words(sum1[r], quarter_words(sum4[r]));
  sum_lanes<count>(sum1, sums);
  for (int r = 0; r < count; ++r) *lanes.acc[r] = sums[r] - a.sum;
}

// See ternary_gemm.inl.h. Two vectors hold kGroups groups of 16 rows. Not inlined: GCC 12 then
// keeps the sums in registers.
struct DotMicro {
  static constexpr int kGroups = 2 * kDotBytes / kQuadBytes;
  static constexpr int kTokens = kMicroTokens;
  static constexpr int kWholeTokens = 0;

  template <int tokens>
  static BITINFER_SYMBOL void run(const uint8_t* panel, int64_t group_bytes, int64_t quads,
                                  int rows, const int8_t* a, int64_t a_stride, const int32_t* a_sum,
                                  int32_t* acc, int64_t acc_stride) {
    constexpr int kVectorRows = kDotBytes / 4;
    const int64_t second = kGroups == 2 ? group_bytes : kDotBytes;
    DotVec sum[tokens][2];
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) sum[t][0] = sum[t][1] = zero_words();
    for (int64_t q = 0; q < quads; ++q, panel += kQuadBytes) {
      const DotVec c0 = load_dot(panel);
      const DotVec c1 = load_dot(panel + second);
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        int32_t four;
        __builtin_memcpy(&four, a + t * a_stride + 4 * q, 4);
        const DotVec x = fill_dot_words(four);
        sum[t][0] = dot_add(sum[t][0], c0, x);
        sum[t][1] = dot_add(sum[t][1], c1, x);
        keep_in_place(sum[t][0]);
        keep_in_place(sum[t][1]);
      }
    }
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t, acc += acc_stride) {
      const int32_t* minus = a_sum ? a_sum + t : nullptr;
      store_rows(sum[t][0], rows, minus, acc);
      store_rows(sum[t][1], rows - kVectorRows, minus, acc + kVectorRows);
    }
  }
};

// See kernel_table.h: the instruction of DotMicro.
BITINFER_INLINE int64_t multiply_peak_steps(int64_t steps) {
  constexpr int kSums = 12;
  const DotVec codes = fill_dot_bytes(1);
  DotVec sum[kSums];
#pragma GCC unroll 12
  for (int j = 0; j < kSums; ++j) sum[j] = zero_words();
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) {
      sum[j] = dot_add(sum[j], codes, codes);
      __asm__ volatile("" : "+v"(sum[j]));  // none is left out
    }
  }
  return steps * kSums * kDotBytes;
}

// See gemm_i8.inl.h. w + 128 is unsigned: acc = sum_k (w + 128) * a - 128 * a_sum, mod 2^32.
// Not inlined, as DotMicro.
template <int rows, int tokens, int ahead>
BITINFER_SYMBOL void dot_rows(const int8_t* const* w, const int8_t* a, int64_t a_stride,
                              const int32_t* a_sum, int64_t k, int32_t* const* acc,
                              int64_t acc_stride) {
  const DotVec bias = fill_dot_bytes(-128);
  DotVec sum[tokens][rows];
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) sum[t][r] = zero_words();
  }
  for (int64_t at = 0; at < k; at += kDotBytes) {
    DotVec biased[rows];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      prefetch(reinterpret_cast<const uint8_t*>(w[r]) + at + ahead);
      biased[r] = xor_dot(load_dot(w[r] + at), bias);
    }
#pragma GCC unroll 8
    for (int t = 0; t < tokens; ++t) {
      const DotVec x = load_dot(a + t * a_stride + at);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        sum[t][r] = dot_add(sum[t][r], biased[r], x);
        keep_in_place(sum[t][r]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) {
    int32_t sums[rows];
    sum_lanes<rows>(sum[t], sums);
    const uint32_t biased_sum = static_cast<uint32_t>(a_sum[t]) << 7;
    for (int r = 0; r < rows; ++r) {
      acc[r][t * acc_stride] = static_cast<int32_t>(static_cast<uint32_t>(sums[r]) - biased_sum);
    }
  }
}
