// Buffers and work splitting around the ternary kernels.
#include "ops/ternary_matmul.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "dispatch/dispatch.h"
#include "ops/linear.h"
#include "pack/pack.h"
#include "threads/thread_pool.h"
#include "util/aligned_buffer.h"
#include "util/check.h"

namespace bitinfer {
namespace {

// Rows of codes as the kernels want them, and their sums.
struct Codes {
  AlignedBuffer<int8_t> copy;
  const int8_t* data;
  int64_t stride;
  std::vector<int32_t> sums;

  explicit Codes(const TernaryMatmul& job) : data(job.codes), stride(activation_bytes(job.w.k)) {
    if (job.codes_stride != stride) {
      copy = AlignedBuffer<int8_t>(static_cast<std::size_t>(job.m * stride));
      for (int64_t m = 0; m < job.m; ++m) {
        std::memcpy(copy.data() + m * stride, job.codes + m * job.codes_stride,
                    static_cast<std::size_t>(job.w.k));
      }
      data = copy.data();
    }
    for (int64_t m = 0; m < job.m; ++m) {
      const int8_t* row = data + m * stride;
      int32_t sum = 0;
      for (int64_t k = 0; k < job.w.k; ++k) sum += row[k];
      sums.push_back(sum);
      BITINFER_CHECK(std::all_of(row + job.w.k, row + stride, [](int8_t c) { return c == 0; }),
                     "codes: expected zeros from column " << job.w.k << " on, in row " << m);
    }
  }
};

void check_job(const TernaryMatmul& job) {
  check_packed_shape(job.w.n, job.w.k);
  BITINFER_CHECK(job.m >= 1, "codes: expected at least 1 row, got " << job.m);
  BITINFER_CHECK(reinterpret_cast<uintptr_t>(job.w.data) % kPackedAlign == 0,
                 "packed: expected data aligned to " << kPackedAlign << " bytes");
}

// Tiles [begin, end) as num_streams equal runs, then what is left as single tiles.
void run_tiles(const GemvFn fn, const PackedTernary& w, const Activation& a, int64_t begin,
               int64_t end, int num_streams, int32_t* acc) {
  const int64_t rows = layout(w.packing).tile_rows;
  while (begin < end) {
    const int64_t streams = std::min<int64_t>(num_streams, end - begin);
    TileStreams s{};
    s.num_streams = static_cast<int>(streams);
    s.tiles_per_stream = (end - begin) / streams;
    for (int64_t i = 0; i < streams; ++i) {
      const int64_t tile = begin + i * s.tiles_per_stream;
      s.tiles[i] = w.data + tile * tile_bytes(w.packing, w.k);
      s.acc[i] = acc + tile * rows;
    }
    fn(s, num_blocks(w.packing, w.k), a);
    begin += streams * s.tiles_per_stream;
  }
}

}  // namespace

void ternary_gemv(const KernelTable& table, GemvFamily family, const TernaryMatmul& job,
                  int num_streams, int num_threads) {
  check_job(job);
  BITINFER_CHECK(num_streams >= 1 && num_streams <= kMaxStreams,
                 "num_streams: expected 1 to " << kMaxStreams << ", got " << num_streams);
  const PackedTernary& w = job.w;
  const int p = static_cast<int>(w.packing);
  const Codes codes(job);
  const GemvChoice gemv = gemv_of(table, w.packing, family);
  const int threads = resolve_num_threads(num_threads);
  const int64_t tiles = num_tiles(w.packing, w.n);
  const int64_t blocks = num_blocks(w.packing, w.k);
  const int64_t table_bytes = gemv.needs_tables ? blocks * table.table_bytes[p] : 0;
  AlignedBuffer<uint8_t> tables(static_cast<std::size_t>(threads * table_bytes));
  std::vector<int32_t> acc(static_cast<std::size_t>(tiles * layout(w.packing).tile_rows));
  for (int64_t m = 0; m < job.m; ++m) {
    const int8_t* row = codes.data + m * codes.stride;
    const int32_t sum = codes.sums[static_cast<std::size_t>(m)];
    parallel_for(threads, 0, tiles, ceil_div(tiles, threads),
                 [&](int64_t begin, int64_t end, int thread) {
                   uint8_t* own = tables.data() + thread * table_bytes;
                   if (table_bytes) table.build_tables[p](row, 0, blocks, own);
                   run_tiles(gemv.fn, w, {row, sum, own}, begin, end, num_streams, acc.data());
                 });
    std::copy_n(acc.data(), w.n, job.acc + m * w.n);
  }
}

void ternary_gemm(const KernelTable& table, const TernaryMatmul& job, int num_threads) {
  check_job(job);
  const PackedTernary& w = job.w;
  const Codes codes(job);
  const int threads = resolve_num_threads(num_threads);
  const int64_t tile_rows = layout(w.packing).tile_rows;
  const int64_t panel_tiles = ceil_div(kPanelRows, tile_rows), panel_rows = panel_tiles * tile_rows;
  AlignedBuffer<uint8_t> scratch(static_cast<std::size_t>(threads * kGemmScratchBytes));
  AlignedBuffer<int32_t> sums(static_cast<std::size_t>(threads * job.m * panel_rows));
  parallel_for(threads, 0, num_tiles(w.packing, w.n), panel_tiles,
               [&](int64_t begin, int64_t end, int thread) {
                 int32_t* acc = sums.data() + thread * job.m * panel_rows;
                 table.gemm[static_cast<int>(w.packing)](
                     w.data + begin * tile_bytes(w.packing, w.k), end - begin,
                     num_blocks(w.packing, w.k), codes.data, codes.stride, codes.sums.data(), job.m,
                     acc, panel_rows, scratch.data() + thread * kGemmScratchBytes);
                 const int64_t row = begin * tile_rows, rows = std::min(panel_rows, w.n - row);
                 for (int64_t m = 0; m < job.m; ++m)
                   std::copy_n(acc + m * panel_rows, rows, job.acc + m * w.n + row);
               });
}

}  // namespace bitinfer
