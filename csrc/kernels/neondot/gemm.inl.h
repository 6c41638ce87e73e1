// GEMM of the Arm rows with dot products, on a micro-kernel of the row.
//
// Weights are unpacked once a panel of 32 rows and piece of K, as groups of 8 rows: per 8 columns,
// 4 vectors of 2 rows x 8 columns. sdot meets such a vector with 8 activations twice over, smmla
// with 8 activations of each of two tokens. Needs unpack.inl.h, token_blocks.inl.h and a struct
// Micro of
//   kTokens   the most tokens that its kernel takes
//   run<tokens>(panel, columns, a, a_stride, rows, acc, acc_stride, add)
// which writes acc[t][r] = (add ? acc[t][r] : 0) + sum_k w * a for the first `rows` of 8 rows.
// Included inside the anonymous namespace of a row.
#pragma once

constexpr int64_t kGroupRows = 8;
constexpr int64_t kPairColumns = 8;  // columns that a vector of two rows holds
constexpr int64_t kI2PanelColumns = 512;
static_assert(kI2PanelColumns * kRowLanes <= kGemmScratchBytes, "panels fit");

// One row pair of a vector of 16 columns each: two vectors of 8 columns.
inline void store_row_pair(int8x16_t even, int8x16_t odd, int8_t* out) {
  const int64x2_t x = vreinterpretq_s64_s8(even), y = vreinterpretq_s64_s8(odd);
  vst1q_s8(out, vreinterpretq_s8_s64(vzip1q_s64(x, y)));
  vst1q_s8(out + kGroupRows * kPairColumns, vreinterpretq_s8_s64(vzip2q_s64(x, y)));
}

// 32 i2 rows (tiles), row r at rows[r].
inline void unpack_pairs_i2(const uint8_t* const* rows, int64_t num_blocks, int8_t* panel,
                            int64_t group_bytes) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(Packing::kI2)];
  for (int64_t r = 0; r < kRowLanes; r += 2) {
    int8_t* out = panel + r / kGroupRows * group_bytes + r % kGroupRows * kPairColumns;
    for (int64_t b = 0; b < num_blocks; ++b) {
      int8_t even[kLayout.block_k], odd[kLayout.block_k];
      unpack_i2_block(rows[r] + b * kLayout.block_bytes, even);
      unpack_i2_block(rows[r + 1] + b * kLayout.block_bytes, odd);
      for (int64_t k = 0; k < kLayout.block_k; k += 16, out += 16 * kGroupRows)
        store_row_pair(vld1q_s8(even + k), vld1q_s8(odd + k), out);
    }
  }
}

// 8 columns of 16 rows, a row of the panel of columns each, to two groups.
inline void store_columns(const int8_t* columns, int8_t* out, int64_t group_bytes) {
  int8x16_t x[8];
  for (int i = 0; i < 8; ++i) x[i] = vld1q_s8(columns + i * kRowLanes);
  for (int group = 0; group < 2; ++group, out += group_bytes) {
    int16x8_t pairs[4];  // of columns 2 i, 2 i + 1, rows of the group
    for (int i = 0; i < 4; ++i) {
      const int8x16_t even = x[2 * i], odd = x[2 * i + 1];
      pairs[i] = vreinterpretq_s16_s8(group ? vzip2q_s8(even, odd) : vzip1q_s8(even, odd));
    }
    for (int half = 0; half < 2; ++half) {  // 4 rows
      const int32x4_t low = vreinterpretq_s32_s16(half ? vzip2q_s16(pairs[0], pairs[1])
                                                       : vzip1q_s16(pairs[0], pairs[1]));
      const int32x4_t high = vreinterpretq_s32_s16(half ? vzip2q_s16(pairs[2], pairs[3])
                                                        : vzip1q_s16(pairs[2], pairs[3]));
      vst1q_s8(out + 32 * half, vreinterpretq_s8_s32(vzip1q_s32(low, high)));
      vst1q_s8(out + 32 * half + 16, vreinterpretq_s8_s32(vzip2q_s32(low, high)));
    }
  }
}

// 32 rows of another packing, those from byte w of each block on.
template <Packing P>
inline void unpack_pairs(const uint8_t* w, int64_t num_blocks, int8_t* panel, int64_t group_bytes) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(P)];
  int8_t columns[kPanelColumns * kRowLanes];
  int64_t count = 0;
  for (int64_t b = 0; b < num_blocks; ++b, count += kLayout.block_k)
    unpack_rows32<P>(w + b * kLayout.block_bytes, columns + count * kRowLanes);
  for (; count % kPairColumns; ++count) {
    for (int64_t r = 0; r < kRowLanes; ++r) columns[count * kRowLanes + r] = 0;
  }
  for (int64_t k = 0; k < count; k += kPairColumns, panel += kGroupRows * kPairColumns) {
    store_columns(columns + k * kRowLanes, panel, group_bytes);
    store_columns(columns + k * kRowLanes + 16, panel + 2 * group_bytes, group_bytes);
  }
}

// acc (+)= the sums of 8 rows, of which the first `rows` exist.
inline void store_group(int32x4_t low, int32x4_t high, int64_t rows, int32_t* acc, bool add) {
  int32_t sums[kGroupRows];
  vst1q_s32(sums, low);
  vst1q_s32(sums + 4, high);
  for (int64_t r = 0; r < rows; ++r) acc[r] = add ? acc[r] + sums[r] : sums[r];
}

template <Packing P, typename Micro>
inline void gemm(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks, const int8_t* a,
                 int64_t a_stride, int64_t m, int32_t* acc, int64_t acc_stride, int8_t* panel) {
  constexpr PackedLayout kLayout = kLayouts[static_cast<int>(P)];
  constexpr int64_t kColumns = P == Packing::kI2 ? kI2PanelColumns : kPanelColumns;
  constexpr int64_t kPieceBlocks = kColumns / kLayout.block_k;
  const int64_t tile_bytes = num_blocks * kLayout.block_bytes;
  const int64_t num_rows = num_tiles * kLayout.tile_rows;
  for (int64_t row = 0; row < num_rows; row += kRowLanes) {
    const int64_t rows = num_rows - row < kRowLanes ? num_rows - row : kRowLanes;
    const uint8_t* first = tiles + row / kLayout.tile_rows * tile_bytes + row % kLayout.tile_rows;
    for (int64_t block = 0; block < num_blocks; block += kPieceBlocks) {
      const int64_t blocks = num_blocks - block < kPieceBlocks ? num_blocks - block : kPieceBlocks;
      const int64_t columns = round_up(blocks * kLayout.block_k, kPairColumns);
      const uint8_t* w = first + block * kLayout.block_bytes;
      if constexpr (P == Packing::kI2) {
        const uint8_t* row_at[kRowLanes];  // missing rows repeat the first one
        for (int64_t r = 0; r < kRowLanes; ++r) row_at[r] = w + (r < rows ? r * tile_bytes : 0);
        unpack_pairs_i2(row_at, blocks, panel, columns * kGroupRows);
      } else {
        unpack_pairs<P>(w, blocks, panel, columns * kGroupRows);
      }
      const int8_t* piece = a + block * kLayout.block_k;
      for (int64_t r = 0; r < rows; r += kGroupRows) {
        for_each_token_block<Micro::kTokens>(0, m, [&](auto tokens, int64_t t) {
          Micro::template run<decltype(tokens)::value>(
              panel + r * columns, columns, piece + t * a_stride, a_stride,
              rows - r < kGroupRows ? rows - r : kGroupRows, acc + t * acc_stride + row + r,
              acc_stride, block > 0);
        });
      }
    }
  }
}
