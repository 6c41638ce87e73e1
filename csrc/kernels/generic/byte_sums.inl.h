// Sums of table look-ups kept as bytes, low and high halves apart, and their widening, on the
// ByteVec vocabulary of the row. Included inside its anonymous namespace.
//
// Widening takes no shuffle: bytes biased by 128 are added as 16-bit words u_even + 256 u_odd, mod
// 2^16, and u_odd once more by itself; even = all - 256 odd. 255 * 256 < 2^16 bounds a run at 256
// widenings.
#pragma once

constexpr int64_t kRunWidenings = 256;

// Of one vector of rows: biased bytes as words, plane 0 low, plane 1 high.
struct ByteSums {
  ByteVec all[2];
  ByteVec odd[2];

  BITINFER_INLINE void clear() {
    for (int plane = 0; plane < 2; ++plane) all[plane] = odd[plane] = fill_bytes(0);
  }
  BITINFER_INLINE void widen(ByteVec low, ByteVec high) {
    all[0] = add_words16(all[0], low);
    odd[0] = add_words16(odd[0], shift_words_right<8>(low));
    all[1] = add_words16(all[1], high);
    odd[1] = add_words16(odd[1], shift_words_right<8>(high));
  }
};

// base * h as shifts that negative numbers may take; base 31 or 32.
template <int base>
BITINFER_INLINE int32_t times(int16_t h) {
  const int32_t h32 = static_cast<int32_t>(static_cast<uint32_t>(int32_t{h}) << 5);
  return base == 32 ? h32 : h32 - h;
}

// acc[r] (+)= base * high + low for the rows of the vector; bias = 128 * number of widenings.
template <int base>
BITINFER_INLINE void store_byte_sums(const ByteSums& sums, int16_t bias, bool first, int32_t* acc) {
  constexpr int kBytes = static_cast<int>(sizeof(ByteVec));
  alignas(kBytes) int16_t odd[2][kBytes / 2];
  alignas(kBytes) int16_t even[2][kBytes / 2];
  for (int plane = 0; plane < 2; ++plane) {
    const ByteVec o = sums.odd[plane];
    const ByteVec e = subtract_words16(sums.all[plane], shift_words_left<8>(o));
    store_bytes(odd[plane], subtract_words16(o, fill_words16(bias)));
    store_bytes(even[plane], subtract_words16(e, fill_words16(bias)));
  }
  for (int i = 0; i < kBytes / 2; ++i) {
    const int32_t e = even[0][i] + times<base>(even[1][i]);
    const int32_t o = odd[0][i] + times<base>(odd[1][i]);
    acc[2 * i] = first ? e : acc[2 * i] + e;
    acc[2 * i + 1] = first ? o : acc[2 * i + 1] + o;
  }
}
