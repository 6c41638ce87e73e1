// The named kernels of the two-plane head and their places in a row's table, on its high_sums and
// join_row. Included inside the namespace of a row.
#pragma once

void head_high_i8_6and2_i32(const uint8_t* high, int64_t n, int64_t k, const int8_t* a,
                            int64_t a_stride, int32_t* acc) {
  high_sums<HeadSplit::k6And2>(high, n, k, a, a_stride, acc);
}

void head_high_i8_5and3_i32(const uint8_t* high, int64_t n, int64_t k, const int8_t* a,
                            int64_t a_stride, int32_t* acc) {
  high_sums<HeadSplit::k5And3>(high, n, k, a, a_stride, acc);
}

void head_join_6and2_i8(const uint8_t* high, const uint8_t* low, int64_t k, int8_t* codes) {
  join_row<HeadSplit::k6And2>(high, low, k, codes);
}

void head_join_5and3_i8(const uint8_t* high, const uint8_t* low, int64_t k, int8_t* codes) {
  join_row<HeadSplit::k5And3>(high, low, k, codes);
}

static void set_head_planes(KernelTable* table) {
  table->head_high[static_cast<int>(HeadSplit::k6And2)] = head_high_i8_6and2_i32;
  table->head_high[static_cast<int>(HeadSplit::k5And3)] = head_high_i8_5and3_i32;
  table->head_join[static_cast<int>(HeadSplit::k6And2)] = head_join_6and2_i8;
  table->head_join[static_cast<int>(HeadSplit::k5And3)] = head_join_5and3_i8;
}
