// Python face of pack/scaled.h.
#include "pack/scaled.h"

#include <pybind11/numpy.h>

#include "bindings/register.h"
#include "util/check.h"

namespace py = pybind11;

namespace bitinfer {
namespace {

using U8 = py::array_t<uint8_t, py::array::c_style>;
using I8 = py::array_t<int8_t, py::array::c_style>;

py::tuple group_magnitudes_array(const U8& buffer, const std::string& dtype, int64_t n, int64_t k,
                                 int64_t group, int num_threads) {
  const FloatMatrix w = float_matrix(buffer.data(), buffer.size(), dtype, n, k);
  BITINFER_CHECK(group >= 1, "group: expected at least 1, got " << group);
  U8 magnitudes(ceil_div(k, group) * n * float_bytes(w.type));
  uint8_t* to = magnitudes.mutable_data();
  int64_t bad = 0;
  {
    py::gil_scoped_release release;
    bad = group_magnitudes(w, group, to, num_threads);
  }
  return py::make_tuple(magnitudes, bad);
}

I8 signs_array(const U8& buffer, const std::string& dtype, int64_t n, int64_t k, int num_threads) {
  const FloatMatrix w = float_matrix(buffer.data(), buffer.size(), dtype, n, k);
  I8 codes({n, k});
  int8_t* to = codes.mutable_data();
  py::gil_scoped_release release;
  signs(w, to, num_threads);
  return codes;
}

}  // namespace

void register_scaled(py::module_& m) {
  const auto threads = py::arg("num_threads") = 0;
  m.def("group_magnitudes", &group_magnitudes_array, py::arg("buffer").noconvert(),
        py::arg("dtype"), py::arg("n"), py::arg("k"), py::arg("group"), threads,
        "(uint8 bytes of the magnitudes (groups, N) in dtype, -1 or row * K + column of the first "
        "weight that is neither 0 nor of its group's magnitude).");
  m.def("signs", &signs_array, py::arg("buffer").noconvert(), py::arg("dtype"), py::arg("n"),
        py::arg("k"), threads, "int8 (N, K): sign of each weight.");
}

}  // namespace bitinfer
