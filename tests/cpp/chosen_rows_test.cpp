// gemv_rows and gemv_columns of every row that this CPU can run, against plain loops; the rows that
// are not chosen lie on pages that may not be read.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "dispatch/dispatch.h"
#include "expect.h"
#include "ternary_oracle.h"
#include "util/aligned_buffer.h"

namespace bitinfer_test {
namespace {

void expect(bool holds, const std::string& what) { EXPECT(holds, "%s", what.c_str()); }

using bitinfer::ChosenRows;
using bitinfer::KernelTable;
using bitinfer::Packing;

constexpr int64_t kRows = 150;

struct Case {
  TernaryMatrix matrix;
  std::vector<int32_t> rows;  // chosen
  std::vector<int8_t> codes;  // of a column or of a row each, whichever are more
  int64_t blocks;
};

Case make_case(int64_t k, int64_t count, bool extreme, Random* random) {
  const int64_t blocks = bitinfer::num_blocks(Packing::kI2, k);
  Case c{{kRows, 256 * blocks, {}}, {}, {}, blocks};
  c.matrix.w.assign(static_cast<std::size_t>(kRows * c.matrix.columns), 0);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      const int w = extreme ? 1 - 2 * static_cast<int>(r % 2) : random->below(3) - 1;
      c.matrix.w[static_cast<std::size_t>(r * c.matrix.columns + i)] = static_cast<int8_t>(w);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    const auto wanted = count - static_cast<int64_t>(c.rows.size());
    if (random->below(static_cast<int>(kRows - r)) < wanted)
      c.rows.push_back(static_cast<int32_t>(r));
  }
  c.codes.assign(static_cast<std::size_t>(bitinfer::activation_bytes(std::max(k, kRows))), 0);
  for (int64_t i = 0; i < std::max(k, kRows); ++i)
    c.codes[static_cast<std::size_t>(i)] =
        static_cast<int8_t>(extreme ? -128 : random->below(256) - 128);
  return c;
}

void check(const std::string& isa, const Case& c, const uint8_t* packed) {
  const KernelTable& table = bitinfer::table_of(isa);
  const auto count = static_cast<int64_t>(c.rows.size());
  const ChosenRows chosen{packed, c.blocks, c.rows.data(), count};
  std::vector<int8_t> codes = c.codes;
  int32_t sum = 0;
  for (int64_t i = 0; i < c.matrix.columns; ++i) {
    if (i >= static_cast<int64_t>(codes.size())) codes.push_back(0);
    sum += codes[static_cast<std::size_t>(i)];
  }
  std::vector<int32_t> acc(c.rows.size() + 1, 0x5a5a);
  table.gemv_rows(chosen, {codes.data(), sum, nullptr}, acc.data());
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    expect(acc[at] == dot(c.matrix.w.data() + c.rows[at] * c.matrix.columns, codes.data(),
                          c.matrix.columns),
           isa + ": gemv_rows, row " + std::to_string(i) + " of " + std::to_string(count));
  }
  expect(acc.back() == 0x5a5a, isa + ": gemv_rows wrote behind its sums");

  const auto columns = static_cast<std::size_t>(c.matrix.columns);
  bitinfer::AlignedBuffer<int32_t> scratch(columns);
  for (std::size_t i = 0; i < columns; ++i) scratch[i] = -7;
  std::vector<int32_t> sums(columns + 1, 1000);
  table.gemv_columns(chosen, c.codes.data(), scratch.data(), sums.data());
  for (std::size_t n = 0; n < columns; ++n) {
    int32_t expected = 1000;
    for (const int32_t r : c.rows)
      expected += c.codes[static_cast<std::size_t>(r)] * c.matrix.at(r, static_cast<int64_t>(n));
    expect(sums[n] == expected, isa + ": gemv_columns, " + std::to_string(count) +
                                    " columns, sum " + std::to_string(n) + " of " +
                                    std::to_string(columns));
  }
  expect(sums.back() == 1000, isa + ": gemv_columns wrote behind its sums");
}

void check_sums(const std::string& isa) {
  Random random(7);
  for (const int64_t k : {1, 70, 256, 257, 700, 2560}) {
    for (const int64_t count : {1, 2, 7, 8, 9, 31, 33, 64, 65, 149, 150}) {
      const Case c = make_case(k, count, count % 2 == 0, &random);
      bitinfer::AlignedBuffer<uint8_t> packed(static_cast<std::size_t>(64 * c.blocks * kRows));
      encode(c.matrix, Packing::kI2, packed.data());
      check(isa, c, packed.data());
    }
  }
}

// Rows of whole pages; those that are not chosen may not be touched.
void check_unread(const std::string& isa) {
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const int64_t k = 4 * page;
  Random random(9);
  const Case c = make_case(k, 40, false, &random);
  const auto bytes = static_cast<std::size_t>(page * kRows);
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  expect(map != MAP_FAILED, "mmap");
  auto* packed = static_cast<uint8_t*>(map);
  encode(c.matrix, Packing::kI2, packed);
  std::size_t next = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    if (next < c.rows.size() && c.rows[next] == r) {
      ++next;
    } else {
      expect(mprotect(packed + r * page, static_cast<std::size_t>(page), PROT_NONE) == 0,
             "mprotect");
    }
  }
  check(isa, c, packed);  // a fault ends the test
  munmap(map, bytes);
}

}  // namespace
}  // namespace bitinfer_test

int main() {
  for (const std::string& isa : bitinfer::available_isas()) {
    bitinfer_test::check_sums(isa);
    bitinfer_test::check_unread(isa);
  }
  return 0;
}
