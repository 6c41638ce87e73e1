// Random matrices through every integer kernel of a row and of the scalar row, and what to do where
// they differ.
#include "dispatch/self_test.h"

#include <sstream>
#include <vector>

#include "dispatch/random.h"
#include "pack/pack.h"
#include "threads/float_mode.h"
#include "util/aligned_buffer.h"

namespace bitinfer {
namespace {

constexpr int64_t kK =
    1031;  // no whole block of any packing, and longer than the int16 ranges of all kernels
constexpr int64_t kRows = 130;  // a few tiles of every packing, the last one partly padding
constexpr int64_t kM = 49;  // every block of tokens that the GEMMs have: 32 + 16 + 1, 4 * 12 + 1

struct Inputs {
  AlignedBuffer<int8_t> codes{static_cast<std::size_t>(kM * activation_bytes(kK))};
  std::vector<int32_t> sums = std::vector<int32_t>(kM);
  AlignedBuffer<uint8_t> packed[kNumPackings];
  AlignedBuffer<int8_t> head{static_cast<std::size_t>(kRows * round_up(kK, 64))};
  AlignedBuffer<uint8_t> scratch{static_cast<std::size_t>(kGemmScratchBytes)};

  Inputs() {
    Random random{1};
    const int64_t a_stride = activation_bytes(kK);
    for (int64_t m = 0; m < kM; ++m) {
      for (int64_t k = 0; k < kK; ++k) {
        // The first row is all -128, the extreme that sign instructions and int16 sums get wrong.
        const int32_t code = m == 0 ? -128 : static_cast<int32_t>(random() % 256) - 128;
        codes[static_cast<std::size_t>(m * a_stride + k)] = static_cast<int8_t>(code);
        sums[static_cast<std::size_t>(m)] += code;
      }
    }
    std::vector<int8_t> weights(kRows * kK);
    for (int8_t& w : weights) w = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
    for (int64_t k = 0; k < kK; ++k) {  // row 0 all +1, row 1 all -1
      weights[static_cast<std::size_t>(k)] = 1;
      weights[static_cast<std::size_t>(kK + k)] = -1;
    }
    std::vector<int8_t> binary = weights;
    for (int8_t& w : binary) w |= 1;  // b1 holds no 0
    for (int p = 0; p < kNumPackings; ++p) {
      const auto packing = static_cast<Packing>(p);
      packed[p] =
          AlignedBuffer<uint8_t>(static_cast<std::size_t>(packed_bytes(packing, kRows, kK)));
      pack((packing == Packing::kB1 ? binary : weights).data(), kRows, kK, packing,
           packed[p].data(), 1);
    }
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t k = 0; k < kK; ++k) {
        // Row 0 is all -128, which no activation of gemm_i8 is but its weights may be.
        const int code = r == 0 ? -128 : static_cast<int>(random() % 256) - 128;
        head[static_cast<std::size_t>(r * round_up(kK, 64) + k)] = static_cast<int8_t>(code);
      }
    }
  }
};

std::vector<int32_t> run_gemv(const KernelTable& table, const Inputs& in, Packing packing,
                              GemvFamily family, int64_t m) {
  const int p = static_cast<int>(packing);
  const int64_t blocks = num_blocks(packing, kK);
  const int64_t tiles = num_tiles(packing, kRows);
  AlignedBuffer<uint8_t> tables(static_cast<std::size_t>(blocks * table.table_bytes[p]));
  const int8_t* codes = in.codes.data() + m * activation_bytes(kK);
  Activation a{codes, in.sums[static_cast<std::size_t>(m)], nullptr};
  if (family == GemvFamily::kAddsub && table.build_tables[p]) {
    table.build_tables[p](codes, 0, blocks, tables.data());
    a.tables = tables.data();
  }
  std::vector<int32_t> acc(static_cast<std::size_t>(tiles * layout(packing).tile_rows));
  // As many streams as there are tiles for, then the rest as one stream.
  const int streams = static_cast<int>(tiles < kMaxStreams ? tiles : kMaxStreams);
  const int64_t per_stream = tiles / streams;
  const auto call = [&](int64_t first_tile, int count, int64_t tiles_each) {
    TileStreams s{};
    s.num_streams = count;
    s.tiles_per_stream = tiles_each;
    for (int i = 0; i < count; ++i) {
      const int64_t tile = first_tile + i * tiles_each;
      s.tiles[i] = in.packed[p].data() + tile * tile_bytes(packing, kK);
      s.acc[i] = acc.data() + tile * layout(packing).tile_rows;
    }
    (family == GemvFamily::kDot ? table.gemv_dot[p] : table.gemv_addsub[p])(s, blocks, a);
  };
  call(0, streams, per_stream);
  if (tiles > streams * per_stream) call(streams * per_stream, 1, tiles - streams * per_stream);
  return acc;
}

// Every third row of the i2 matrix, as a list.
std::vector<int32_t> some_rows() {
  std::vector<int32_t> rows;
  for (int32_t r = 0; r < kRows; r += 3) rows.push_back(r);
  return rows;
}

ChosenRows chosen(const Inputs& in, const std::vector<int32_t>& rows) {
  constexpr Packing kPacking = Packing::kI2;
  return {in.packed[static_cast<int>(kPacking)].data(), num_blocks(kPacking, kK), rows.data(),
          static_cast<int64_t>(rows.size())};
}

std::vector<int32_t> run_gemv_rows(const KernelTable& table, const Inputs& in, int64_t m) {
  const std::vector<int32_t> rows = some_rows();
  std::vector<int32_t> acc(rows.size());
  table.gemv_rows(
      chosen(in, rows),
      {in.codes.data() + m * activation_bytes(kK), in.sums[static_cast<std::size_t>(m)], nullptr},
      acc.data());
  return acc;
}

// From sums that are there on, as a thread adds up several lists.
std::vector<int32_t> run_gemv_columns(const KernelTable& table, const Inputs& in, int64_t m) {
  const std::vector<int32_t> rows = some_rows();
  std::vector<int32_t> acc(static_cast<std::size_t>(round_up(kK, 256)), 7);
  AlignedBuffer<int32_t> scratch(acc.size());
  table.gemv_columns(chosen(in, rows), in.codes.data() + m * activation_bytes(kK), scratch.data(),
                     acc.data());
  return acc;
}

// The blocks of the i2 matrix as rows of one block each; a row of kernels without gemv_groups runs
// gemv_dot on each group.
std::vector<int32_t> run_gemv_groups(const KernelTable& table, const Inputs& in, int groups,
                                     int64_t m) {
  constexpr int kI2 = static_cast<int>(Packing::kI2);
  const int64_t rows = kRows * num_blocks(Packing::kI2, kK), stride = activation_bytes(256);
  AlignedBuffer<int8_t> codes(static_cast<std::size_t>(groups * stride));
  std::vector<int32_t> sums(static_cast<std::size_t>(groups));
  for (int64_t k = 0; k < 256; ++k) {
    const int64_t g = k * groups / 256;
    const int8_t code = in.codes[static_cast<std::size_t>(m * activation_bytes(kK) + k)];
    codes[static_cast<std::size_t>(g * stride + k)] = code;
    sums[static_cast<std::size_t>(g)] += code;
  }
  std::vector<int32_t> acc(static_cast<std::size_t>(groups * rows));
  if (table.gemv_groups) {
    table.gemv_groups(in.packed[kI2].data(), rows, groups, {codes.data(), stride, sums.data(), 1},
                      acc.data(), rows);
    return acc;
  }
  for (int64_t g = 0; g < groups; ++g) {
    TileStreams s{1, rows, {in.packed[kI2].data()}, {acc.data() + g * rows}};
    table.gemv_dot[kI2](s, 1,
                        {codes.data() + g * stride, sums[static_cast<std::size_t>(g)], nullptr});
  }
  return acc;
}

std::vector<int32_t> run_gemm(const KernelTable& table, Inputs& in, Packing packing) {
  const int64_t stride = num_tiles(packing, kRows) * layout(packing).tile_rows;
  std::vector<int32_t> acc(static_cast<std::size_t>(kM * stride));
  table.gemm[static_cast<int>(packing)](in.packed[static_cast<int>(packing)].data(),
                                        num_tiles(packing, kRows), num_blocks(packing, kK),
                                        in.codes.data(), activation_bytes(kK), in.sums.data(), kM,
                                        acc.data(), stride, in.scratch.data());
  return acc;
}

// Activations of the head, which are never -128: rows activation_bytes(kK) apart.
AlignedBuffer<int8_t> head_activations(const Inputs& in) {
  AlignedBuffer<int8_t> a(in.codes.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    a[i] = in.codes[i] == -128 ? int8_t{-127} : in.codes[i];
  return a;
}

std::vector<int32_t> run_gemm_i8(const KernelTable& table, const Inputs& in) {
  std::vector<int32_t> acc(kM * kRows);
  const int64_t stride = activation_bytes(kK);
  const AlignedBuffer<int8_t> a = head_activations(in);
  std::vector<int32_t> sums(kM);
  for (int64_t i = 0; i < kM * stride; ++i)
    sums[static_cast<std::size_t>(i / stride)] += a[static_cast<std::size_t>(i)];
  table.gemm_i8(in.head.data(), kRows, a.data(), stride, sums.data(), kM, round_up(kK, 64),
                acc.data(), kRows);
  return acc;
}

// Sums of the high plane, then the codes of both planes.
std::vector<int32_t> run_head_planes(const KernelTable& table, const Inputs& in, HeadSplit split) {
  const int64_t high_bytes = high_row_bytes(split, kK), low_bytes = low_row_bytes(split, kK);
  AlignedBuffer<uint8_t> high(static_cast<std::size_t>(kRows * high_bytes));
  AlignedBuffer<uint8_t> low(static_cast<std::size_t>(kRows * low_bytes));
  AlignedBuffer<int8_t> row(static_cast<std::size_t>(plane_columns(kK)));
  std::vector<int32_t> residual(kRows), out(2 * kRows);
  split_head(split, in.head.data(), kRows, kK, high.data(), low.data(), residual.data(), 1);
  const int s = static_cast<int>(split);
  table.head_high[s](high.data(), kRows, kK, head_activations(in).data(), activation_bytes(kK),
                     out.data());
  for (int64_t r = 0; r < kRows; ++r) {
    table.head_join[s](high.data() + r * high_bytes, low.data() + r * low_bytes, kK, row.data());
    out.insert(out.end(), row.data(), row.data() + row.size());
  }
  return out;
}

std::string first_difference(const std::string& kernel, const std::vector<int32_t>& got,
                             const std::vector<int32_t>& expected) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == expected[i]) continue;
    std::ostringstream text;
    text << kernel << ": expected sum " << expected[i] << ", got " << got[i] << " at " << i;
    return text.str();
  }
  return "";
}

std::string compare_read_streams(const KernelTable& row, const KernelTable& oracle,
                                 const Inputs& in) {
  const auto* data = reinterpret_cast<const uint8_t*>(in.head.data());
  for (int streams = 1; streams <= kMaxStreams; ++streams) {
    const int64_t unit = 64 * streams;
    const int64_t bytes = static_cast<int64_t>(in.head.size()) / unit * unit;
    if (row.read_streams(data, bytes, streams) != oracle.read_streams(data, bytes, streams))
      return "read_streams: another checksum with " + std::to_string(streams) + " streams";
  }
  return "";
}

std::string compare_integer_kernels(const KernelTable& row, const KernelTable& oracle) {
  Inputs in;
  for (int p = 0; p < kNumPackings; ++p) {
    const auto packing = static_cast<Packing>(p);
    const std::string name = layout(packing).name;
    for (int64_t m = 0; m < 2; ++m) {
      const std::vector<int32_t> expected = run_gemv(oracle, in, packing, GemvFamily::kDot, m);
      for (const GemvFamily family : {GemvFamily::kAddsub, GemvFamily::kDot}) {
        const std::string kernel =
            (family == GemvFamily::kDot ? "gemv_dot " : "gemv_addsub ") + name;
        const std::string text =
            first_difference(kernel, run_gemv(row, in, packing, family, m), expected);
        if (!text.empty()) return text;
      }
    }
    const std::string text =
        first_difference("gemm " + name, run_gemm(row, in, packing), run_gemm(oracle, in, packing));
    if (!text.empty()) return text;
  }
  for (int s = 0; s < kNumHeadSplits; ++s) {
    const auto split = static_cast<HeadSplit>(s);
    const std::string text =
        first_difference(std::string("head planes ") + layout(split).name,
                         run_head_planes(row, in, split), run_head_planes(oracle, in, split));
    if (!text.empty()) return text;
  }
  for (int64_t m = 0; m < 2; ++m) {
    std::string text =
        first_difference("gemv_rows", run_gemv_rows(row, in, m), run_gemv_rows(oracle, in, m));
    if (text.empty()) {
      text = first_difference("gemv_columns", run_gemv_columns(row, in, m),
                              run_gemv_columns(oracle, in, m));
    }
    for (const int groups : {2, 4}) {
      if (!text.empty()) return text;
      text = first_difference("gemv_groups", run_gemv_groups(row, in, groups, m),
                              run_gemv_groups(oracle, in, groups, m));
    }
    if (!text.empty()) return text;
  }
  const std::string text =
      first_difference("gemm_i8", run_gemm_i8(row, in), run_gemm_i8(oracle, in));
  return text.empty() ? compare_read_streams(row, oracle, in) : text;
}

}  // namespace

std::string compare_kernels(const KernelTable& row, const KernelTable& oracle) {
  const FloatMode mode;
  const std::string text = compare_integer_kernels(row, oracle);
  return text.empty() ? compare_float_kernels(row.f32, oracle.f32) : text;
}

Settled step_down(const std::vector<Candidate>& candidates) {
  const std::size_t last = candidates.size() - 1;
  std::string failed;
  std::size_t i = 0;
  for (; i < last; ++i) {
    const std::string difference = compare_kernels(*candidates[i].table, *candidates[last].table);
    if (difference.empty()) break;
    failed += (failed.empty() ? "" : "; ") + candidates[i].name + " failed its self-test (" +
              difference + ")";
  }
  return {i, failed.empty() ? "" : failed + ": using " + candidates[i].name};
}

}  // namespace bitinfer
