// The two-plane head, layout in pack/head_planes.h, on a row's vectors of bytes. Rows of the high
// plane are read from far-apart places side by side.
//
// Needs ByteVec, WordVec and their words, shift_words_left/right among them, and
//   kPlaneRows                        rows read side by side
//   add_products(sum, u0, x0, u1, x1) adds the products of two vectors of bytes u in 0..63 with two
//                                     of activations x in -127..127 to the lanes of sum
//   sum_lanes<count>(sums, out)       out[i] = the lanes of sums[i] together
// Included inside the anonymous namespace of a row.
#pragma once

constexpr int kPlaneVec = static_cast<int>(sizeof(ByteVec));

template <int n>  // to the left; bits cross bytes and must be masked
BITINFER_INLINE ByteVec shift_words(ByteVec a) {
  if constexpr (n > 0) return shift_words_left<n>(a);
  if constexpr (n < 0) return shift_words_right<-n>(a);
  return a;
}

// `bits` bits of each byte from bit `from` on, put at bit `to`.
template <int bits, int from, int to>
BITINFER_INLINE ByteVec field(ByteVec a) {
  return and_bytes(shift_words<to - from>(a), fill_bytes(((1 << bits) - 1) << to));
}

// h of group g of a block.
template <HeadSplit split, int g>
BITINFER_INLINE ByteVec high_codes(ByteVec nibbles, ByteVec middle) {
  constexpr int kBits = layout(split).middle_bits;
  return or_bytes(field<kBits, g * kBits, 4>(middle), field<4, 4 * (g % 2), 0>(nibbles));
}

template <int rows>
struct PlaneRows {
  const uint8_t* row[rows];
  WordVec sum[2][rows];  // with the two planes of the activations
};

// Pairs of groups pair..pairs - 1 of a block whose parts start `part` bytes into their 64.
template <HeadSplit split, int pairs, int pair, int rows>
BITINFER_INLINE void add_pairs(PlaneRows<rows>& w, const ByteVec (&middle)[rows], const int8_t* a,
                               int64_t a_stride, int part) {
  ByteVec x[2][2];
  for (int p = 0; p < 2; ++p) {
    for (int i = 0; i < 2; ++i) {
      const int8_t* at = a + p * a_stride + 128 * pair + 64 * i + part;
      x[p][i] = load_bytes(reinterpret_cast<const uint8_t*>(at));
    }
  }
  for (int r = 0; r < rows; ++r) {
    const ByteVec nibbles = in_register(load_bytes(w.row[r] + 64 * (1 + pair) + part));
    const ByteVec h0 = high_codes<split, 2 * pair>(nibbles, middle[r]);
    const ByteVec h1 = high_codes<split, 2 * pair + 1>(nibbles, middle[r]);
    for (int p = 0; p < 2; ++p) {
      w.sum[p][r] = add_products(w.sum[p][r], h0, x[p][0], h1, x[p][1]);
      keep_order(w.sum[p][r]);
    }
  }
  if constexpr (pair + 1 < pairs) add_pairs<split, pairs, pair + 1>(w, middle, a, a_stride, part);
}

template <HeadSplit split, int pairs, int rows>
BITINFER_INLINE void add_block(PlaneRows<rows>& w, const int8_t* a, int64_t a_stride) {
  for (int r = 0; r < rows; ++r) {
    for (int line = 0; line <= pairs; ++line)
      prefetch(w.row[r] + 64 * line + prefetch_ahead<rows>(r));
  }
  for (int part = 0; part < 64; part += kPlaneVec) {
    ByteVec middle[rows];
    for (int r = 0; r < rows; ++r) middle[r] = in_register(load_bytes(w.row[r] + part));
    add_pairs<split, pairs, 0>(w, middle, a, a_stride, part);
  }
  for (int r = 0; r < rows; ++r) w.row[r] += 64 * (pairs + 1);
}

// A last block of at most `pairs` pairs of groups.
template <HeadSplit split, int pairs, int rows>
BITINFER_INLINE void add_last_block(PlaneRows<rows>& w, int64_t left, const int8_t* a,
                                    int64_t a_stride) {
  if constexpr (pairs > 0) {
    if (left == pairs) return add_block<split, pairs>(w, a, a_stride);
    add_last_block<split, pairs - 1>(w, left, a, a_stride);
  }
}

// acc[r], acc[n + r] for `rows` rows that lie `step` rows apart.
template <HeadSplit split, int rows>
BITINFER_INLINE void high_sums_rows(const uint8_t* high, int64_t step, int64_t n, int64_t k,
                                    const int8_t* a, int64_t a_stride, int32_t* acc) {
  constexpr int kPairs = layout(split).groups / 2;
  PlaneRows<rows> w;
  for (int r = 0; r < rows; ++r) {
    w.row[r] = high + r * step * high_row_bytes(split, k);
    w.sum[0][r] = w.sum[1][r] = zero_words();
  }
  int64_t left = plane_pairs(k);
  for (; left >= kPairs; left -= kPairs, a += 128 * kPairs)
    add_block<split, kPairs>(w, a, a_stride);
  add_last_block<split, kPairs - 1>(w, left, a, a_stride);
  for (int p = 0; p < 2; ++p, acc += n) {
    int32_t sums[rows];
    sum_lanes<rows>(w.sum[p], sums);
    for (int r = 0; r < rows; ++r) acc[r * step] = sums[r];
  }
}

template <HeadSplit split>
BITINFER_INLINE void high_sums(const uint8_t* high, int64_t n, int64_t k, const int8_t* a,
                               int64_t a_stride, int32_t* acc) {
  assert(n >= 1 && k >= 1 && k <= kMaxPlaneColumns);
  const int64_t row_bytes = high_row_bytes(split, k), step = n / kPlaneRows;
  for (int64_t i = 0; i < step; ++i)
    high_sums_rows<split, kPlaneRows>(high + i * row_bytes, step, n, k, a, a_stride, acc + i);
  for (int64_t i = step * kPlaneRows; i < n; ++i)
    high_sums_rows<split, 1>(high + i * row_bytes, 0, n, k, a, a_stride, acc + i);
}

// l of group g of a block.
template <HeadSplit split, int g>
BITINFER_INLINE ByteVec low_codes(const uint8_t* low) {
  if constexpr (split == HeadSplit::k6And2) return field<2, 2 * g, 0>(load_bytes(low));
  return or_bytes(field<1, g, 2>(load_bytes(low)),
                  field<2, 2 * (g % 4), 0>(load_bytes(low + 64 * (1 + g / 4))));
}

template <HeadSplit split, int g>
BITINFER_INLINE void join_groups(const uint8_t* high, const uint8_t* low, int64_t pairs,
                                 int8_t* codes) {
  if (g == 2 * pairs) return;
  for (int part = 0; part < 64; part += kPlaneVec) {
    const ByteVec h =
        high_codes<split, g>(load_bytes(high + 64 * (1 + g / 2) + part), load_bytes(high + part));
    const ByteVec b = or_bytes(shift_words_left<layout(split).low_bits>(h),  // h fits: no masking
                               low_codes<split, g>(low + part));
    store_bytes(codes + 64 * g + part, add_bytes(b, fill_bytes(-128)));
  }
  if constexpr (g + 1 < layout(split).groups) join_groups<split, g + 1>(high, low, pairs, codes);
}

template <HeadSplit split>
BITINFER_INLINE void join_row(const uint8_t* high, const uint8_t* low, int64_t k, int8_t* codes) {
  constexpr int64_t kPairs = layout(split).groups / 2;
  for (int64_t left = plane_pairs(k); left > 0; left -= kPairs, codes += 128 * kPairs) {
    const int64_t pairs = left < kPairs ? left : kPairs;
    join_groups<split, 0>(high, low, pairs, codes);
    high += 64 * (pairs + 1);
    low += 64 * (split == HeadSplit::k6And2 ? 1 : 1 + ceil_div(pairs, 2));
  }
}
