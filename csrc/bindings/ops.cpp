// Python face of csrc/ops: deterministic maths and the memory roofline.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/register.h"
#include "dispatch/dispatch.h"
#include "ops/elementary.h"
#include "ops/grouped_linear.h"
#include "ops/multiply_peak.h"
#include "ops/read_bandwidth.h"
#include "pack/checkpoint.h"
#include "pack/pack.h"
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

using U8 = py::array_t<uint8_t, py::array::c_style>;

Array<float> grouped_linear(const U8& packed, const std::string& packing, int64_t n, int64_t k,
                            std::optional<int64_t> group, const U8& scales,
                            const std::string& dtype, const Array<float>& x, int activation_levels,
                            int num_threads) {
  const Packing p = packing_from_name(packing);
  const GroupedShape shape{p, {group.value_or(k), 0}, activation_levels, false};
  const FloatType type = float_type_from_name(dtype);
  check_packed_shape(n, k);
  check_group(p, k, shape.groups.size);
  BITINFER_CHECK(x.ndim() == 2 && x.shape(1) == k &&
                     packed.size() == grouped_bytes(p, n, k, shape.groups.size) &&
                     scales.size() == num_groups(k, shape.groups.size) * n * float_bytes(type),
                 "grouped_linear: expected x (M, k), packed bytes and scales (groups, n)");
  const int64_t m = x.shape(0);
  std::vector<ThreadScratch> scratch;
  for (int i = 0; i < num_threads; ++i) {
    scratch.push_back({AlignedBuffer<uint8_t>(kGemmScratchBytes), {}, {}, {}});
  }
  const OpContext ctx{&active_table(), p, gemv_for(p), num_threads, &scratch};
  const Linear layer{{p, n, k, packed.data()}, 0.0f, nullptr, nullptr, {scales.data(), type}};
  Array<float> y({m, n});
  const LinearOutput out{&layer, y.mutable_data(), n, false};
  py::gil_scoped_release release;
  const FloatMode mode;
  GroupedLinears(shape, num_threads, m, k).run(ctx, x.data(), m, k, {}, &out, 1);
  return y;
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
  m.def("grouped_linear", &grouped_linear, py::arg("packed").noconvert(), py::arg("packing"),
        py::arg("n"), py::arg("k"), py::arg("group"), py::arg("scales").noconvert(),
        py::arg("dtype"), py::arg("x"), py::arg("activation_levels"), py::arg("num_threads") = 1,
        "float32 (M, n) of one layer and x (M, k): scales are the bytes of (groups, n) of dtype; "
        "activation_levels 127, or 16383 for activations of 15 bits.");
  m.def("read_bandwidth", &read_bandwidth, py::arg("buffer"), py::arg("threads"),
        py::arg("streams"), py::arg("repeats"),
        "Seconds of each repeat of reading the uint8 buffer once, with that many threads and "
        "streams per thread.");
}

}  // namespace bitinfer
