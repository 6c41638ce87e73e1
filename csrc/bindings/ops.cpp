// Python face of csrc/ops: deterministic maths and the memory roofline.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/register.h"
#include "dispatch/dispatch.h"
#include "ops/elementary.h"
#include "ops/multiply_peak.h"
#include "ops/read_bandwidth.h"
#include "threads/float_mode.h"
#include "util/check.h"

namespace py = pybind11;

namespace bitinfer {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <typename T>
Array<T> like(const Array<T>& x) {
  return Array<T>(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
}

Array<float> exp_f32(const Array<float>& x) {
  Array<float> y = like(x);
  const FloatMode mode;
  active_table().f32.exp(x.data(), x.size(), y.mutable_data());
  return y;
}

Array<double> pow_f64(double base, const Array<double>& exponents) {
  Array<double> y = like(exponents);
  const FloatMode mode;
  for (py::ssize_t i = 0; i < exponents.size(); ++i)
    y.mutable_data()[i] = pow(base, exponents.data()[i]);
  return y;
}

py::tuple sin_cos_f32(const Array<float>& angles) {
  Array<float> sin = like(angles), cos = like(angles);
  const FloatMode mode;
  sin_cos(angles.data(), angles.size(), sin.mutable_data(), cos.mutable_data());
  return py::make_tuple(sin, cos);
}

std::vector<double> read_bandwidth(const py::array_t<uint8_t, py::array::c_style>& buffer,
                                   int threads, int streams, int repeats) {
  BITINFER_CHECK(repeats >= 1, "repeats: expected at least 1, got " << repeats);
  const uint8_t* data = buffer.data();
  const int64_t bytes = buffer.size();
  py::gil_scoped_release release;
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) seconds.push_back(read_once(data, bytes, streams, threads));
  return seconds;
}

}  // namespace

void register_ops(py::module_& m) {
  m.def("exp_f32", &exp_f32, py::arg("x"),
        "exp of each float32, equal bits on every machine; 0 below -87.3125, inf above 88.375.");
  m.def("pow_f64", &pow_f64, py::arg("base"), py::arg("exponents"),
        "base ** exponents in float64, equal bits on every machine; base > 0.");
  m.def("sin_cos_f32", &sin_cos_f32, py::arg("angles"),
        "(sin, cos) of float32 angles, computed in float64 and rounded; NaN beyond 2^24.");
  m.def(
      "multiply_peak",
      [](const std::string& isa, int threads) { return multiply_peak(table_of(isa), threads); },
      py::arg("isa"), py::arg("threads"), py::call_guard<py::gil_scoped_release>(),
      "int8 products per second of a row's GEMM instructions in registers alone, over a few "
      "milliseconds; 0 where the row tells none.");
  m.def("read_bandwidth", &read_bandwidth, py::arg("buffer"), py::arg("threads"),
        py::arg("streams"), py::arg("repeats"),
        "Seconds of each repeat of reading the uint8 buffer once, with that many threads and "
        "streams per thread.");
}

}  // namespace bitinfer
