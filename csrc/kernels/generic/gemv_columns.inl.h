// gemv_columns in plain C++, for the rows without one of their own: loops of a shape that compilers
// turn into vectors. Included inside the anonymous namespace of a row.
#pragma once

BITINFER_INLINE void gemv_columns_plain(const ChosenRows& w, const int8_t* codes, int32_t* acc) {
  constexpr PackedLayout kLayout = layout(Packing::kI2);
  assert(w.count >= 1 && w.num_blocks >= 1);
  for (int64_t i = 0; i < w.count; ++i) {
    const int16_t code = codes[w.rows[i]];
    const uint8_t* block = w.w + w.rows[i] * w.num_blocks * kLayout.block_bytes;
    int32_t* sums = acc;
    for (int64_t b = 0; b < w.num_blocks; ++b, block += kLayout.block_bytes) {
      for (int shift = 0; shift < 8; shift += 2, sums += 64) {
        for (int p = 0; p < 64; ++p) {
          const int weight = ((block[p] >> shift) & 3) - 1;
          sums[p] += static_cast<int16_t>(code * static_cast<int16_t>(weight));
        }
      }
    }
  }
}
