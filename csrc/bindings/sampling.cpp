// Python face of ops/sampling: from logits to the next token.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/register.h"
#include "ops/sampling.h"
#include "threads/float_mode.h"
#include "util/check.h"

namespace py = pybind11;

namespace bitinfer {
namespace {

using F32 = py::array_t<float, py::array::c_style | py::array::forcecast>;

const float* checked(const F32& values) {
  BITINFER_CHECK(values.ndim() == 1 && values.size() > 0,
                 "logits: expected float32 (vocab_size,), got "
                     << values.ndim() << " dimensions and " << values.size() << " values");
  return values.data();
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

}  // namespace

void register_sampling(py::module_& m) {
  m.def(
      "argmax", [](const F32& logits) { return argmax(checked(logits), logits.size()); },
      py::arg("logits"),
      "Place of the largest value, the first of equals; -1 if it is not finite or a value is NaN.");
  m.def(
      "largest",
      [](const F32& values, int64_t count) {
        const float* data = checked(values);
        BITINFER_CHECK(count >= 0 && count <= values.size() && argmax(data, values.size()) >= 0,
                       "values: expected numbers, at least " << count << " of them");
        return to_array(largest(data, values.size(), count));
      },
      py::arg("values"), py::arg("count"),
      "Places of the `count` largest values, largest first, of equals the first one first.");
  m.def(
      "total",
      [](const F32& values) {
        const FloatMode mode;
        return total(checked(values), values.size());
      },
      py::arg("values"), "The sum in float64, added one after the other.");

  py::class_<Candidates>(m, "Candidates", "Which tokens may be drawn: temperature to XTC.")
      .def(py::init([](float temperature, int64_t top_k, double typical_p, double top_p,
                       double min_p, double xtc_threshold) {
             return Candidates({temperature, top_k, typical_p, top_p, min_p, xtc_threshold});
           }),
           py::arg("temperature"), py::arg("top_k"), py::arg("typical_p"), py::arg("top_p"),
           py::arg("min_p"), py::arg("xtc_threshold"))
      .def(
          "draw",
          [](Candidates& c, const F32& logits, double uniform, bool xtc) {
            const FloatMode mode;
            return c.choose(checked(logits), logits.size(), xtc) ? c.draw(uniform) : -1;
          },
          py::arg("logits"), py::arg("uniform"), py::arg("xtc"),
          "The token that `uniform`, in [0, 1), falls on; -1 if the logits have no largest number.")
      .def(
          "weights",
          [](Candidates& c, const F32& logits, bool xtc) {
            const FloatMode mode;
            BITINFER_CHECK(c.choose(checked(logits), logits.size(), xtc),
                           "logits: expected a finite largest value");
            return py::make_tuple(to_array(c.ids()), to_array(c.weights()));
          },
          py::arg("logits"), py::arg("xtc"),
          "(ids, ascending; their weights, not normalised) of the tokens that may be drawn.");
}

}  // namespace bitinfer
