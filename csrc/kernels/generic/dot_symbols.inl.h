// The named dot products of an x86 row and their places in its table: on ternary_gemm.inl.h, on
// gemm_i8.inl.h, on read_streams.inl.h and on the row's DotMicro, multiply_peak_steps and
// i2_dot_lanes. Included inside the namespace of a row (these have external linkage).
#pragma once

BITINFER_SYMBOL void ternary_gemv_dot_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  for_each_lane_group<kI2DotLanes>(streams, num_blocks * kI2BlockBytes, 1, [&](const auto& lanes) {
    i2_dot_lanes(lanes, num_blocks, a, fetch_ahead(lanes));
  });
}

BITINFER_SYMBOL void ternary_gemv_rows_i8_i2_i32(const ChosenRows& w, const Activation& a,
                                                 int32_t* acc) {
  gemv_chosen_rows(w, a, acc);
}

BITINFER_SYMBOL void ternary_gemv_dot_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  gemv_by_gemm<Packing::kT3, DotMicro>(streams, num_blocks, a);
}

BITINFER_SYMBOL void ternary_gemv_dot_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  gemv_by_gemm<Packing::kT5, DotMicro>(streams, num_blocks, a);
}

BITINFER_SYMBOL void ternary_gemv_dot_i8_b1_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  gemv_by_gemm<Packing::kB1, DotMicro>(streams, num_blocks, a);
}

BITINFER_SYMBOL void ternary_gemm_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kI2, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                               scratch, kGemmPieceK);
}

BITINFER_SYMBOL void ternary_gemm_i8_t3_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT3, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                               scratch, kGemmPieceK);
}

BITINFER_SYMBOL void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT5, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                               scratch, kGemmPieceK);
}

BITINFER_SYMBOL void ternary_gemm_i8_b1_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kB1, DotMicro>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                               scratch, kGemmPieceK);
}

BITINFER_SYMBOL void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
                             const int32_t* a_sum, int64_t m, int64_t k_padded, int32_t* acc,
                             int64_t acc_stride) {
  gemm_i8_by_rows(w, n, a, a_stride, a_sum, m, k_padded, acc, acc_stride);
}

BITINFER_SYMBOL uint32_t read_streams(const uint8_t* data, int64_t bytes, int num_streams) {
  return read_streams_by_count(data, bytes, num_streams);
}

BITINFER_SYMBOL int64_t multiply_peak(int64_t steps) { return multiply_peak_steps(steps); }

static void set_dot_symbols(KernelTable* table) {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  constexpr int kT3 = static_cast<int>(Packing::kT3);
  constexpr int kT5 = static_cast<int>(Packing::kT5);
  constexpr int kB1 = static_cast<int>(Packing::kB1);
  table->gemv_dot[kI2] = ternary_gemv_dot_i8_i2_i32;
  table->dot_streams[kI2] = kI2DotLanes;
  table->gemv_dot[kT3] = ternary_gemv_dot_i8_t3_i32;
  table->gemv_dot[kT5] = ternary_gemv_dot_i8_t5_i32;
  table->gemv_dot[kB1] = ternary_gemv_dot_i8_b1_i32;
  table->gemm[kI2] = ternary_gemm_i8_i2_i32;
  table->gemm[kT3] = ternary_gemm_i8_t3_i32;
  table->gemm[kT5] = ternary_gemm_i8_t5_i32;
  table->gemm[kB1] = ternary_gemm_i8_b1_i32;
  table->gemv_rows = ternary_gemv_rows_i8_i2_i32;
  table->gemm_i8 = gemm_i8;
  table->read_streams = read_streams;
  table->multiply_peak = multiply_peak;
}
