// Ternary matrices (N, K) to and from the packed layouts of format.h: exact, parallel, the same
// bytes on any number of threads. Errors are std::invalid_argument with the row, the column and the
// byte.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "pack/format.h"

namespace bitinfer {

// Weights pass through pieces of 64 rows by 3840 columns: whole tiles and whole blocks of every
// packing.
constexpr int64_t kPieceRows = 64;
constexpr int64_t kPieceCols = 3840;
constexpr int64_t kPieceStride = kPieceCols + 64;  // no power of two, for the cache

// Writes weights of rows [row, row + num_rows), columns [col, col + num_cols) to w, rows
// kPieceStride apart. Called from several threads at once; must not throw. w is zero where nothing
// is written.
using PieceSource =
    std::function<void(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, int8_t* w)>;

Packing packing_from_name(const std::string& name);
void check_packed_shape(int64_t n, int64_t k);  // 1 <= N < 2^31, 1 <= K < 2^23
int resolve_num_threads(int num_threads);       // 0: as many as this process may run on

// packed: packed_bytes(packing, n, k), overwritten, tail included. weights: (N, K) row-major in
// {-1, 0, 1}, rows `stride` apart, 0: K; b1 refuses 0.
void pack_pieces(const PieceSource& source, int64_t n, int64_t k, Packing packing, uint8_t* packed,
                 int num_threads);
void pack(const int8_t* weights, int64_t n, int64_t k, Packing packing, uint8_t* packed,
          int num_threads, int64_t stride = 0);

// Both refuse impossible codes before they write. repack: out holds packed_bytes(to, n, k).
void unpack(const PackedTernary& w, int8_t* weights, int num_threads, int64_t stride = 0);
void repack(const PackedTernary& w, Packing to, uint8_t* out, int num_threads);

// The transposed matrix (K, N) in i2, each row of `out` a column of w: packed_bytes(i2, K, N).
void pack_transposed(const PackedTernary& w, uint8_t* out, int num_threads);

// Refuses what encodes nothing: impossible codes, weights in padding rows or columns, a tail that
// is not zero.
void validate_packed(const PackedTernary& w, int num_threads);

}  // namespace bitinfer
