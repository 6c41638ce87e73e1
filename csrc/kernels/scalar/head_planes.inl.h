// The two-plane head of the scalar row, layout in pack/head_planes.h. Included inside the anonymous
// namespace of the row.
#pragma once

// fn(column, h, l) for every column of a row; low may be null, then l is 0.
template <HeadSplit split, typename Fn>
BITINFER_INLINE void for_plane_columns(const uint8_t* high, const uint8_t* low, int64_t k,
                                       const Fn& fn) {
  constexpr HeadSplitLayout kLayout = layout(split);
  constexpr int kMask = (1 << kLayout.middle_bits) - 1;
  int64_t column = 0;
  for (int64_t left = plane_pairs(k); left > 0; left -= kLayout.groups / 2) {
    const int64_t pairs = left < kLayout.groups / 2 ? left : kLayout.groups / 2;
    for (int g = 0; g < 2 * pairs; ++g) {
      for (int p = 0; p < 64; ++p, ++column) {
        const int nibble = (high[64 * (1 + g / 2) + p] >> (4 * (g % 2))) & 15;
        const int middle = (high[p] >> (g * kLayout.middle_bits)) & kMask;
        int l = 0;
        if (low && split == HeadSplit::k6And2) l = (low[p] >> (2 * g)) & 3;
        if (low && split == HeadSplit::k5And3)
          l = ((low[p] >> g) & 1) << 2 | ((low[64 * (1 + g / 4) + p] >> (2 * (g % 4))) & 3);
        fn(column, middle << 4 | nibble, l);
      }
    }
    high += 64 * (pairs + 1);
    if (low) low += 64 * (split == HeadSplit::k6And2 ? 1 : 1 + ceil_div(pairs, 2));
  }
}

template <HeadSplit split>
BITINFER_INLINE void high_sums(const uint8_t* high, int64_t n, int64_t k, const int8_t* a,
                               int64_t a_stride, int32_t* acc) {
  for (int64_t r = 0; r < n; ++r, high += high_row_bytes(split, k)) {
    int32_t sum[2] = {};
    for_plane_columns<split>(high, nullptr, k, [&](int64_t column, int h, int) {
      sum[0] += h * a[column];
      sum[1] += h * a[a_stride + column];
    });
    acc[r] = sum[0];
    acc[n + r] = sum[1];
  }
}

template <HeadSplit split>
BITINFER_INLINE void join_row(const uint8_t* high, const uint8_t* low, int64_t k, int8_t* codes) {
  for_plane_columns<split>(high, low, k, [&](int64_t column, int h, int l) {
    codes[column] = static_cast<int8_t>((h << layout(split).low_bits) + l - 128);
  });
}
