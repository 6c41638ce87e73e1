// Python face of pack/ and of the raw integer kernels: shape and dtype checks, the GIL released
// around the work.
#include "pack/pack.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "bindings/register.h"
#include "dispatch/dispatch.h"
#include "ops/ternary_matmul.h"
#include "pack/checkpoint.h"
#include "pack/grouped.h"
#include "threads/thread_pool.h"
#include "util/check.h"
#include "util/huge_memory.h"

namespace py = pybind11;

namespace bitinfer {
namespace {

using U8 = py::array_t<uint8_t, py::array::c_style>;
using I8 = py::array_t<int8_t, py::array::c_style>;
using I32 = py::array_t<int32_t, py::array::c_style>;
using F32 = py::array_t<float, py::array::c_style>;

// uint8 (bytes) of memory in huge pages.
U8 huge_bytes(int64_t bytes) {
  auto memory = std::make_unique<HugeMemory>(static_cast<std::size_t>(bytes));
  uint8_t* const first = memory->data();
  const py::capsule owner(memory.release(), [](void* p) { delete static_cast<HugeMemory*>(p); });
  return U8({bytes}, {int64_t{1}}, first, owner);
}

// uint8 (bytes) that starts at a multiple of kPackedAlign, as the kernels want it.
U8 aligned_bytes(int64_t bytes) {
  if (bytes >= static_cast<int64_t>(kHugePage)) return huge_bytes(bytes);
  U8 owner(bytes + kPackedAlign);
  const auto at = reinterpret_cast<uintptr_t>(owner.mutable_data());
  uint8_t* first = owner.mutable_data() +
                   round_up(static_cast<int64_t>(at % kPackedAlign), kPackedAlign) -
                   static_cast<int64_t>(at % kPackedAlign);
  return U8({bytes}, {int64_t{1}}, first, owner);
}

void check_dims(const py::array& a, int ndim, const char* name) {
  BITINFER_CHECK(a.ndim() == ndim,
                 name << ": expected " << ndim << " dimensions, got " << a.ndim());
}

using Group = std::optional<int64_t>;  // columns of a group; none: all

GroupedTernary grouped_view(const U8& packed, const std::string& packing, int64_t n, int64_t k,
                            const Group& group) {
  const Packing p = packing_from_name(packing);
  check_packed_shape(n, k);
  check_group(p, k, group.value_or(k));
  const int64_t bytes = grouped_bytes(p, n, k, group.value_or(k));
  BITINFER_CHECK(packed.size() == bytes, "packed: expected " << bytes << " bytes for " << packing
                                                             << " (" << n << ", " << k << "), got "
                                                             << packed.size());
  return {p, n, k, group.value_or(k), packed.data()};
}

PackedTernary packed_view(const U8& packed, const std::string& packing, int64_t n, int64_t k) {
  const GroupedTernary w = grouped_view(packed, packing, n, k, {});
  return {w.packing, n, k, w.data};
}

py::dict layouts() {
  py::dict all;
  for (const PackedLayout& l : kLayouts) {
    all[l.name] =
        py::dict(py::arg("tile_rows") = l.tile_rows, py::arg("block_k") = l.block_k,
                 py::arg("block_bytes") = l.block_bytes,
                 py::arg("bits_per_weight") = 8.0 * static_cast<double>(l.block_bytes) /
                                              static_cast<double>(l.tile_rows * l.block_k));
  }
  return all;
}

U8 pack_array(const I8& weights, const std::string& packing, int num_threads, const Group& group) {
  check_dims(weights, 2, "weights");
  const Packing p = packing_from_name(packing);
  const int64_t n = weights.shape(0), k = weights.shape(1), columns = group.value_or(k);
  check_packed_shape(n, k);
  check_group(p, k, columns);
  U8 out = aligned_bytes(grouped_bytes(p, n, k, columns));
  uint8_t* to = out.mutable_data();
  const int8_t* from = weights.data();
  py::gil_scoped_release release;
  pack_grouped(from, n, k, p, columns, to, num_threads);
  return out;
}

I8 unpack_array(const U8& packed, const std::string& packing, int64_t n, int64_t k, int num_threads,
                const Group& group) {
  const GroupedTernary w = grouped_view(packed, packing, n, k, group);
  I8 out({n, k});
  int8_t* to = out.mutable_data();
  py::gil_scoped_release release;
  unpack_grouped(w, to, num_threads);
  return out;
}

void validate_array(const U8& packed, const std::string& packing, int64_t n, int64_t k,
                    int num_threads, const Group& group) {
  const GroupedTernary w = grouped_view(packed, packing, n, k, group);
  py::gil_scoped_release release;
  validate_grouped(w, num_threads);
}

U8 repack_array(const U8& packed, const std::string& src, const std::string& dst, int64_t n,
                int64_t k, int num_threads, const Group& group) {
  const GroupedTernary w = grouped_view(packed, src, n, k, group);
  const Packing to = packing_from_name(dst);
  check_group(to, k, w.group);
  U8 out = aligned_bytes(grouped_bytes(to, n, k, w.group));
  uint8_t* data = out.mutable_data();
  py::gil_scoped_release release;
  repack_grouped(w, to, data, num_threads);
  return out;
}

void copy_array(const U8& from, U8& to, int num_threads) {
  BITINFER_CHECK(from.size() == to.size(),
                 "to: expected " << from.size() << " bytes, got " << to.size());
  const uint8_t* source = from.data();
  uint8_t* target = to.mutable_data();
  const int64_t bytes = from.size(), piece = static_cast<int64_t>(kHugePage);
  py::gil_scoped_release release;
  parallel_for(resolve_num_threads(num_threads), 0, bytes, piece,
               [&](int64_t begin, int64_t end, int) {
                 std::memcpy(target + begin, source + begin, static_cast<std::size_t>(end - begin));
               });
}

U8 pack_hf_array(const U8& hf, int64_t n, const std::string& packing, int num_threads) {
  check_dims(hf, 2, "packed weights");
  const Packing p = packing_from_name(packing);
  const int64_t k = hf.shape(1);
  check_packed_shape(n, k);
  BITINFER_CHECK(hf.shape(0) == ceil_div(n, 4), "packed weights: expected "
                                                    << ceil_div(n, 4) << " byte rows for " << n
                                                    << " rows, got " << hf.shape(0));
  U8 out = aligned_bytes(packed_bytes(p, n, k));
  uint8_t* to = out.mutable_data();
  const uint8_t* from = hf.data();
  py::gil_scoped_release release;
  pack_hf(from, n, k, p, to, num_threads);
  return out;
}

py::tuple pack_absmean_array(const U8& buffer, const std::string& dtype, int64_t n, int64_t k,
                             const std::string& packing, int num_threads) {
  const FloatMatrix w = float_matrix(buffer.data(), buffer.size(), dtype, n, k);
  const Packing p = packing_from_name(packing);
  U8 out = aligned_bytes(packed_bytes(p, n, k));
  uint8_t* to = out.mutable_data();
  float scale = 0.0f;
  {
    py::gil_scoped_release release;
    scale = pack_absmean(w, p, to, num_threads);
  }
  return py::make_tuple(out, scale);
}

py::tuple quantize_rows_i8_array(const U8& buffer, const std::string& dtype, int64_t n, int64_t k,
                                 int num_threads) {
  const FloatMatrix w = float_matrix(buffer.data(), buffer.size(), dtype, n, k);
  const U8 bytes = aligned_bytes(n * round_up(k, 64));
  I8 codes({n, round_up(k, 64)}, reinterpret_cast<const int8_t*>(bytes.data()), bytes);
  F32 scales(n);
  int8_t* codes_to = codes.mutable_data();
  float* scales_to = scales.mutable_data();
  {
    py::gil_scoped_release release;
    quantize_rows_i8(w, codes_to, scales_to, num_threads);
  }
  return py::make_tuple(codes, scales);
}

// ---- raw kernels, for tests ----

const KernelTable& table_or_active(const std::optional<std::string>& isa) {
  return isa ? table_of(*isa) : active_table();
}

int64_t codes_stride(const I8& codes, int64_t k, int axis) {
  BITINFER_CHECK(codes.shape(axis) == k || codes.shape(axis) == activation_bytes(k),
                 "codes: expected " << k << " or (read in place) " << activation_bytes(k)
                                    << " columns, got " << codes.shape(axis));
  return codes.shape(axis);
}

I32 gemv_array(const U8& packed, const std::string& packing, int64_t n, int64_t k, const I8& codes,
               const std::string& family, const std::optional<std::string>& isa, int num_streams,
               int num_threads) {
  check_dims(codes, 1, "codes");
  I32 acc(n);
  const TernaryMatmul job{packed_view(packed, packing, n, k), codes.data(),
                          codes_stride(codes, k, 0), 1, acc.mutable_data()};
  py::gil_scoped_release release;
  ternary_gemv(table_or_active(isa), family_from_name(family), job, num_streams, num_threads);
  return acc;
}

I32 gemm_array(const U8& packed, const std::string& packing, int64_t n, int64_t k, const I8& codes,
               const std::optional<std::string>& isa, int num_threads,
               const std::optional<I32>& out) {
  check_dims(codes, 2, "codes");
  const int64_t m = codes.shape(0);
  I32 acc = out ? *out : I32({m, n});
  BITINFER_CHECK(acc.ndim() == 2 && acc.shape(0) == m && acc.shape(1) == n,
                 "out: expected shape (" << m << ", " << n << ")");
  const TernaryMatmul job{packed_view(packed, packing, n, k), codes.data(),
                          codes_stride(codes, k, 1), codes.shape(0), acc.mutable_data()};
  py::gil_scoped_release release;
  ternary_gemm(table_or_active(isa), job, num_threads);
  return acc;
}

// (rows, K) with K padded by zeros to a multiple of 64.
std::vector<int8_t> padded_rows(const I8& rows, const char* name, int least) {
  check_dims(rows, 2, name);
  const int64_t k = rows.shape(1);
  const int64_t stride = round_up(k, 64);
  std::vector<int8_t> padded(static_cast<std::size_t>(rows.shape(0) * stride));
  for (int64_t r = 0; r < rows.shape(0); ++r) {
    const int8_t* row = rows.data() + r * k;
    BITINFER_CHECK(k == 0 || *std::min_element(row, row + k) >= least,
                   name << ": expected " << least << " to 127, got -128 in row " << r);
    std::copy_n(row, k, padded.begin() + r * stride);
  }
  return padded;
}

I32 gemm_i8_array(const I8& w, const I8& a, const std::optional<std::string>& isa) {
  const std::vector<int8_t> w_rows = padded_rows(w, "w", -128);
  const std::vector<int8_t> a_rows = padded_rows(a, "a", -127);
  const int64_t n = w.shape(0);
  const int64_t m = a.shape(0);
  const int64_t k = w.shape(1);
  BITINFER_CHECK(a.shape(1) == k, "a: expected " << k << " columns as in w, got " << a.shape(1));
  BITINFER_CHECK(n >= 1 && m >= 1 && k >= 1,
                 "gemm_i8: expected at least one row and column, got w ("
                     << n << ", " << k << "), a (" << m << ", " << k << ")");
  const int64_t stride = round_up(k, 64);
  std::vector<int32_t> sums;
  for (int64_t i = 0; i < m; ++i) {
    sums.push_back(
        std::accumulate(a_rows.begin() + i * stride, a_rows.begin() + (i + 1) * stride, 0));
  }
  I32 acc({m, n});
  table_or_active(isa).gemm_i8(w_rows.data(), n, a_rows.data(), stride, sums.data(), m, stride,
                               acc.mutable_data(), n);
  return acc;
}

}  // namespace

void register_pack(py::module_& m) {
  const auto threads = py::arg("num_threads") = 0;
  const auto grouped = py::arg("group") = py::none();
  m.def("layouts", &layouts, "Packing name -> tile_rows, block_k, block_bytes, bits_per_weight.");
  m.def(
      "packed_bytes",
      [](const std::string& packing, int64_t n, int64_t k, const Group& group) {
        const Packing p = packing_from_name(packing);
        check_packed_shape(n, k);
        check_group(p, k, group.value_or(k));
        return grouped_bytes(p, n, k, group.value_or(k));
      },
      py::arg("packing"), py::arg("n"), py::arg("k"), grouped,
      "Bytes of a packed (n, k) matrix whose weight scales are one for each row and `group` "
      "columns; here and below, no group: all columns are packed as one part.");
  m.def("pack", &pack_array, py::arg("weights").noconvert(), py::arg("packing"), threads, grouped,
        "int8 (N, K) in {-1, 0, 1} -> packed uint8. ValueError for other weights, and for 0 in "
        "b1.");
  m.def("unpack", &unpack_array, py::arg("packed").noconvert(), py::arg("packing"), py::arg("n"),
        py::arg("k"), threads, grouped,
        "Packed uint8 -> int8 (N, K). ValueError for impossible codes.");
  m.def("validate", &validate_array, py::arg("packed").noconvert(), py::arg("packing"),
        py::arg("n"), py::arg("k"), threads, grouped,
        "ValueError naming row, column and byte of the first code that encodes nothing.");
  m.def("repack", &repack_array, py::arg("packed").noconvert(), py::arg("src"), py::arg("dst"),
        py::arg("n"), py::arg("k"), threads, grouped,
        "From one packing to another. ValueError for a weight 0 that is to go to b1.");
  m.def("huge_bytes", &huge_bytes, py::arg("num_bytes"),
        "uint8 (num_bytes) zeros at a multiple of 2 MiB, in huge pages where the system has them. "
        "MemoryError.");
  m.def("copy_bytes", &copy_array, py::arg("source").noconvert(), py::arg("target").noconvert(),
        threads, "Copy uint8 bytes to as many others, in parallel.");
  m.def("pack_hf", &pack_hf_array, py::arg("hf").noconvert(), py::arg("n"), py::arg("packing"),
        threads, "Hugging Face 2-bit uint8 (ceil(n/4), K) -> packed uint8. ValueError for code 3.");
  m.def("pack_absmean", &pack_absmean_array, py::arg("buffer").noconvert(), py::arg("dtype"),
        py::arg("n"), py::arg("k"), py::arg("packing"), threads,
        "Master weights -> (packed uint8, weight_scale that multiplies).");
  m.def("quantize_rows_i8", &quantize_rows_i8_array, py::arg("buffer").noconvert(),
        py::arg("dtype"), py::arg("n"), py::arg("k"), threads,
        "Float rows -> (int8 (n, k rounded up to 64), float32 scales (n)).");
  m.def("ternary_gemv", &gemv_array, py::arg("packed").noconvert(), py::arg("packing"),
        py::arg("n"), py::arg("k"), py::arg("codes").noconvert(), py::arg("family"),
        py::arg("isa") = py::none(), py::arg("num_streams") = kMaxStreams,
        py::arg("num_threads") = 1,
        "int32 (N) sums of codes int8 (K); family \"addsub\" or \"dot\".");
  m.def("ternary_gemm", &gemm_array, py::arg("packed").noconvert(), py::arg("packing"),
        py::arg("n"), py::arg("k"), py::arg("codes").noconvert(), py::arg("isa") = py::none(),
        py::arg("num_threads") = 1, py::arg("out").noconvert() = py::none(),
        "int32 (M, N) sums of codes int8 (M, K), in `out` where it is given.");
  m.def("gemm_i8", &gemm_i8_array, py::arg("w").noconvert(), py::arg("a").noconvert(),
        py::arg("isa") = py::none(),
        "int32 (M, N) sums of int8 (N, K) rows times int8 (M, K) rows, the latter in -127..127.");
}

}  // namespace bitinfer
