// b1 by additions only: 16-entry table look-ups, on the ByteVec vocabulary of the row. Included
// inside its anonymous namespace, after lane_groups.inl.h and byte_sums.inl.h.
//
// A nibble of weights meets 4 activations, whose 16 sums T, in -512..512, are stored as
//   T = 32 h + l,   l in -16..15, h in -16..16
// in two int8 tables; 3 K-blocks, 6 nibbles, add up in int8 (6 * 16 = 96) before they widen.
#pragma once

// Of a K-block: for each nibble 16 bytes l, then 16 bytes h.
constexpr int64_t kB1TableBytes = 64;
constexpr int64_t kB1BlockBytes = kLayouts[static_cast<int>(Packing::kB1)].block_bytes;
constexpr int kB1Rows = 64;
constexpr int kB1Vecs = kB1Rows / static_cast<int>(sizeof(ByteVec));
constexpr int64_t kB1WidenBlocks = 3;

// Adds `blocks` K-blocks of one vector of rows.
template <int blocks>
BITINFER_INLINE void b1_add_blocks(const uint8_t* w, const uint8_t* tables, ByteSums& sums) {
  const ByteVec nibble = fill_bytes(15);
  ByteVec low = fill_bytes(-128);
  ByteVec high = low;
#pragma GCC unroll 3
  for (int b = 0; b < blocks; ++b, w += kB1BlockBytes) {
    const ByteVec bits = load_bytes(w);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half, tables += kB1TableBytes / 2) {
      const ByteVec index = and_bytes(half ? shift_words_right<4>(bits) : bits, nibble);
      low = add_bytes(low, look_up(load_table(tables), index));
      high = add_bytes(high, look_up(load_table(tables + 16), index));
    }
  }
  sums.widen(low, high);
}

// Adds `left` K-blocks, at most `blocks`, of every lane, whose tiles it steps along.
template <int blocks, int count>
BITINFER_INLINE void b1_add_lanes(const uint8_t** tile, const uint8_t* tables, int64_t left,
                                  ByteSums (*sums)[kB1Vecs]) {
  if (left >= blocks) {
    for (int r = 0; r < count; ++r) {
      for (int b = 0; b < blocks; ++b)
        prefetch(tile[r] + b * kB1BlockBytes + prefetch_ahead<count>(r));
      for (int v = 0; v < kB1Vecs; ++v)
        b1_add_blocks<blocks>(tile[r] + v * static_cast<int>(sizeof(ByteVec)), tables, sums[r][v]);
      tile[r] += blocks * kB1BlockBytes;
    }
  } else if constexpr (blocks > 1) {
    b1_add_lanes<blocks - 1, count>(tile, tables, left, sums);
  }
}

template <int count>
BITINFER_INLINE void b1_lane_group(const LaneGroup<count>& lanes, int64_t num_blocks,
                                   const uint8_t* tables) {
  const uint8_t* tile[count];
  for (int r = 0; r < count; ++r) tile[r] = lanes.tile[r];
  bool first = true;
  for (int64_t left = num_blocks; left > 0; first = false) {
    ByteSums sums[count][kB1Vecs];
    for (int r = 0; r < count; ++r) {
      for (int v = 0; v < kB1Vecs; ++v) sums[r][v].clear();
    }
    int64_t widenings = 0;
    for (; left > 0 && widenings < kRunWidenings; ++widenings, left -= kB1WidenBlocks) {
      b1_add_lanes<kB1WidenBlocks, count>(tile, tables, left, sums);
      tables += kB1WidenBlocks * kB1TableBytes;
    }
    for (int r = 0; r < count; ++r) {
      for (int v = 0; v < kB1Vecs; ++v) {
        store_byte_sums<32>(sums[r][v], static_cast<int16_t>(widenings << 7), first,
                            lanes.acc[r] + v * static_cast<int>(sizeof(ByteVec)));
      }
    }
  }
}
