// The named GEMM functions of a row, and its GEMV of the dot family for t3 and t5, all on
// ternary_gemm.inl.h. Included inside the namespace of a row (these have external linkage).
#pragma once

BITINFER_SYMBOL void ternary_gemv_dot_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  gemv_by_gemm<Packing::kT3>(streams, num_blocks, a);
}

BITINFER_SYMBOL void ternary_gemv_dot_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                                const Activation& a) {
  gemv_by_gemm<Packing::kT5>(streams, num_blocks, a);
}

BITINFER_SYMBOL void ternary_gemm_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kI2>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride, scratch,
                     kGemmPieceK);
}

BITINFER_SYMBOL void ternary_gemm_i8_t3_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT3>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride, scratch,
                     kGemmPieceK);
}

BITINFER_SYMBOL void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles,
                                            int64_t num_blocks, const int8_t* a, int64_t a_stride,
                                            const int32_t* a_sum, int64_t m, int32_t* acc,
                                            int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT5>(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride, scratch,
                     kGemmPieceK);
}
