// Named kernels of the rows that have vpdpbusd and their places in a table, after
// dot_symbols.inl.h. Included inside the namespace of a row (these have external linkage).
#pragma once

BITINFER_SYMBOL void ternary_gemm_few_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles,
                                                int64_t num_blocks, const int8_t* a,
                                                int64_t a_stride, const int32_t* a_sum, int64_t m,
                                                int32_t* acc, int64_t acc_stride,
                                                uint8_t* scratch) {
  if (m <= kFewI2Tokens)
    return gemm_few_i2(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride);
  ternary_gemm_i8_i2_i32(tiles, num_tiles, num_blocks, a, a_stride, a_sum, m, acc, acc_stride,
                         scratch);
}

BITINFER_SYMBOL void ternary_gemv_columns_i8_i2_i32(const ChosenRows& w, const int8_t* codes,
                                                    int32_t* scratch, int32_t* acc) {
  gemv_columns_by_quads(w, codes, scratch, acc);
}

static void set_vnni_symbols(KernelTable* table) {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  set_dot_symbols(table);
  table->gemm[kI2] = ternary_gemm_few_i8_i2_i32;
  table->gemv_tokens[kI2] = 1;
  table->gemv_columns = ternary_gemv_columns_i8_i2_i32;
  table->auto_packing = Packing::kI2;
}
