// Python face of the two-plane head's kernels; the head itself is the decoder's.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/register.h"
#include "dispatch/dispatch.h"
#include "pack/head_planes.h"
#include "util/aligned_buffer.h"
#include "util/check.h"

namespace py = pybind11;

namespace bitinfer {
namespace {

using I8 = py::array_t<int8_t, py::array::c_style>;
using U8 = py::array_t<uint8_t, py::array::c_style>;
using I32 = py::array_t<int32_t, py::array::c_style>;

HeadSplit split_from_name(const std::string& name) {
  for (int i = 0; i < kNumHeadSplits; ++i) {
    if (name == kHeadSplits[i].name) return static_cast<HeadSplit>(i);
  }
  BITINFER_CHECK(false, "split: expected 6+2 or 5+3, got " << name);
  throw;
}

void check_shape(int64_t n, int64_t k) {
  BITINFER_CHECK(n >= 1 && k >= 1 && k <= kMaxPlaneColumns,
                 "two-plane head: expected at least one row and 1 to "
                     << kMaxPlaneColumns << " columns, got (" << n << ", " << k << ")");
}

void check_plane(const U8& plane, const char* name, int64_t bytes) {
  BITINFER_CHECK(plane.size() == bytes,
                 name << ": expected " << bytes << " bytes, got " << plane.size());
}

const KernelTable& table_or_active(const std::optional<std::string>& isa) {
  return isa ? table_of(*isa) : active_table();
}

// Rows (N, K) to a buffer of rows `stride` long, zeros behind them.
AlignedBuffer<int8_t> padded(const I8& rows, int64_t stride) {
  AlignedBuffer<int8_t> buffer(static_cast<std::size_t>(rows.shape(0) * stride));
  for (int64_t r = 0; r < rows.shape(0); ++r)
    std::copy_n(rows.data() + r * rows.shape(1), rows.shape(1), buffer.data() + r * stride);
  return buffer;
}

py::tuple split_head_array(const I8& codes, const std::string& split_name) {
  BITINFER_CHECK(codes.ndim() == 2, "codes: expected two dimensions, got " << codes.ndim());
  const HeadSplit split = split_from_name(split_name);
  const int64_t n = codes.shape(0), k = codes.shape(1);
  check_shape(n, k);
  U8 high(n * high_row_bytes(split, k)), low(n * low_row_bytes(split, k));
  I32 residual(n);
  std::fill_n(high.mutable_data(), high.size(), uint8_t{0});
  std::fill_n(low.mutable_data(), low.size(), uint8_t{0});
  split_head(split, padded(codes, round_up(k, 64)).data(), n, k, high.mutable_data(),
             low.mutable_data(), residual.mutable_data(), 1);
  return py::make_tuple(high, low, residual);
}

I32 head_high_array(const U8& high, const std::string& split_name, int64_t n, int64_t k,
                    const I8& a, const std::optional<std::string>& isa) {
  const HeadSplit split = split_from_name(split_name);
  check_shape(n, k);
  check_plane(high, "high", n * high_row_bytes(split, k));
  BITINFER_CHECK(a.ndim() == 2 && a.shape(0) == 2 && a.shape(1) == k,
                 "a: expected int8 (2, " << k << ")");
  const AlignedBuffer<int8_t> planes = padded(a, plane_columns(k));
  I32 acc({int64_t{2}, n});
  table_or_active(isa).head_high[static_cast<int>(split)](high.data(), n, k, planes.data(),
                                                          plane_columns(k), acc.mutable_data());
  return acc;
}

I8 head_join_array(const U8& high, const U8& low, const std::string& split_name, int64_t n,
                   int64_t k, const std::optional<std::string>& isa) {
  const HeadSplit split = split_from_name(split_name);
  check_shape(n, k);
  check_plane(high, "high", n * high_row_bytes(split, k));
  check_plane(low, "low", n * low_row_bytes(split, k));
  AlignedBuffer<int8_t> row(static_cast<std::size_t>(plane_columns(k)));
  I8 codes({n, k});
  for (int64_t r = 0; r < n; ++r) {
    table_or_active(isa).head_join[static_cast<int>(split)](
        high.data() + r * high_row_bytes(split, k), low.data() + r * low_row_bytes(split, k), k,
        row.data());
    std::copy_n(row.data(), k, codes.mutable_data() + r * k);
  }
  return codes;
}

}  // namespace

void register_head(py::module_& m) {
  m.def("split_head", &split_head_array, py::arg("codes").noconvert(), py::arg("split"),
        "int8 (N, K) -> planes (high, low) and int32 (N) residual; split \"6+2\" or \"5+3\".");
  m.def("head_high", &head_high_array, py::arg("high").noconvert(), py::arg("split"), py::arg("n"),
        py::arg("k"), py::arg("a").noconvert(), py::arg("isa") = py::none(),
        "int32 (2, N) sums of the high plane with both planes of a state, int8 (2, K) in "
        "-127..127.");
  m.def("head_join", &head_join_array, py::arg("high").noconvert(), py::arg("low").noconvert(),
        py::arg("split"), py::arg("n"), py::arg("k"), py::arg("isa") = py::none(),
        "int8 (N, K) codes of both planes.");
}

}  // namespace bitinfer
