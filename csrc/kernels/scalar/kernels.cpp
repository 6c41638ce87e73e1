// The scalar row: the fallback of every machine, and the readable form of each algorithm of the
// other rows.
//
// Every kernel reads whole tiles and is memory-safe on any bytes; impossible codes only give
// meaningless sums. The addsub kernels hold no multiply instruction (pointers are stepped, never
// computed by a product).
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "pack/format.h"
// clang-format off: the vocabulary first
#include "kernels/scalar/simd.h"
#include "kernels/generic/float_kernels.inl.h"
// clang-format on

namespace bitinfer {
namespace scalar {
namespace {

#define BITINFER_INLINE inline __attribute__((always_inline))

constexpr int kT3Rows = 32;
constexpr int kByteRows = 64;  // of a tile of t5 or b1, a byte of each in a K-block

// clang-format off
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/scalar/gemv_addsub.inl.h"
#include "kernels/scalar/unpacked.inl.h"
#include "kernels/scalar/head_planes.inl.h"
#include "kernels/generic/gemv_columns.inl.h"
// clang-format on

}  // namespace

// ---- GEMV by additions and subtractions ----

void ternary_gemv_addsub_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                   const Activation& a) {
  gemv_addsub_i2(streams, num_blocks, a);
}

void ternary_gemv_addsub_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                   const Activation& a) {
  gemv_addsub_t3(streams, num_blocks, a);
}

void ternary_gemv_addsub_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                   const Activation& a) {
  gemv_addsub_bytes<5, build_t5>(streams, num_blocks, a);
}

void ternary_gemv_addsub_i8_b1_i32(const TileStreams& streams, int64_t num_blocks,
                                   const Activation& a) {
  gemv_addsub_bytes<8, build_b1>(streams, num_blocks, a);
}

// ---- GEMV by dot products ----

void ternary_gemv_dot_i8_i2_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kI2>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_t3_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kT3>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_t5_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kT5>(streams, num_blocks, a);
}

void ternary_gemv_dot_i8_b1_i32(const TileStreams& streams, int64_t num_blocks,
                                const Activation& a) {
  gemv_dot<Packing::kB1>(streams, num_blocks, a);
}

void ternary_gemv_rows_i8_i2_i32(const ChosenRows& w, const Activation& a, int32_t* acc) {
  gemv_rows_i2(w, a, acc);
}

void ternary_gemv_columns_i8_i2_i32(const ChosenRows& w, const int8_t* codes, int32_t* /*scratch*/,
                                    int32_t* acc) {
  gemv_columns_plain(w, codes, acc);
}

// ---- GEMM ----

void ternary_gemm_i8_i2_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kI2>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void ternary_gemm_i8_t3_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT3>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void ternary_gemm_i8_t5_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kT5>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void ternary_gemm_i8_b1_i32(const uint8_t* tiles, int64_t num_tiles, int64_t num_blocks,
                            const int8_t* a, int64_t a_stride, const int32_t* /*a_sum*/, int64_t m,
                            int32_t* acc, int64_t acc_stride, uint8_t* scratch) {
  gemm<Packing::kB1>(tiles, num_tiles, num_blocks, a, a_stride, m, acc, acc_stride, scratch);
}

void gemm_i8(const int8_t* w, int64_t n, const int8_t* a, int64_t a_stride,
             const int32_t* /*a_sum*/, int64_t m, int64_t k_padded, int32_t* acc,
             int64_t acc_stride) {
  assert(n >= 1 && m >= 1 && k_padded % 64 == 0);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < m; ++i)
      acc[i * acc_stride + r] = dot_i8(w + r * k_padded, a + i * a_stride, k_padded);
  }
}

// ---- two-plane head ----

#include "kernels/generic/head_plane_symbols.inl.h"

// ---- memory ----

uint32_t read_streams(const uint8_t* data, int64_t bytes, int num_streams) {
  constexpr int64_t kLine = 64;
  const int64_t stream_bytes = bytes / num_streams;
  assert(bytes % (kLine * num_streams) == 0);
  uint32_t lanes[16] = {};
  for (int64_t at = 0; at < stream_bytes; at += kLine) {
    for (int s = 0; s < num_streams; ++s) {
      const uint8_t* line = data + s * stream_bytes + at;
      __builtin_prefetch(line + kBytesAhead / num_streams);
      uint32_t words[16];
      __builtin_memcpy(words, line, sizeof(words));
      for (int i = 0; i < 16; ++i) lanes[i] += words[i];
    }
  }
  uint32_t sum = 0;
  for (uint32_t lane : lanes) sum += lane;
  return sum;
}

KernelTable make_kernel_table() {
  KernelTable t{};
  t.gemv_addsub[0] = ternary_gemv_addsub_i8_i2_i32;
  t.gemv_addsub[1] = ternary_gemv_addsub_i8_t3_i32;
  t.gemv_addsub[2] = ternary_gemv_addsub_i8_t5_i32;
  t.gemv_addsub[3] = ternary_gemv_addsub_i8_b1_i32;
  t.gemv_dot[0] = ternary_gemv_dot_i8_i2_i32;
  t.gemv_dot[1] = ternary_gemv_dot_i8_t3_i32;
  t.gemv_dot[2] = ternary_gemv_dot_i8_t5_i32;
  t.gemv_dot[3] = ternary_gemv_dot_i8_b1_i32;
  t.gemm[0] = ternary_gemm_i8_i2_i32;
  t.gemm[1] = ternary_gemm_i8_t3_i32;
  t.gemm[2] = ternary_gemm_i8_t5_i32;
  t.gemm[3] = ternary_gemm_i8_b1_i32;
  for (GemvFamily& family : t.auto_family) family = GemvFamily::kAddsub;
  for (int64_t& tokens : t.gemv_tokens) tokens = 4;
  for (int& streams : t.addsub_streams) streams = kMaxStreams;
  for (int& streams : t.dot_streams) streams = kMaxStreams;
  t.auto_packing = Packing::kT5;
  t.gemv_rows = ternary_gemv_rows_i8_i2_i32;
  t.gemv_columns = ternary_gemv_columns_i8_i2_i32;
  t.gemm_i8 = gemm_i8;
  set_head_planes(&t);
  t.read_streams = read_streams;
  t.f32 = make_float_kernels();
  return t;
}

}  // namespace scalar
}  // namespace bitinfer
