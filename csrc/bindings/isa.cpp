// Python face of dispatch/: rows, the GEMV family, the self-test.
#include <pybind11/stl.h>

#include "bindings/register.h"
#include "dispatch/dispatch.h"
#include "pack/pack.h"

namespace py = pybind11;

namespace bitinfer {

void register_isa(py::module_& m) {
  m.def("available_isas", &available_isas,
        "Names of the rows that this machine can run, best first.");
  m.def(
      "isa_report",
      [] {
        py::list rows;
        for (const IsaStatus& row : isa_report()) {
          rows.append(py::dict(py::arg("name") = row.name, py::arg("usable") = row.usable,
                               py::arg("reason") = row.reason));
        }
        return rows;
      },
      "Every row of this architecture, best first: name, usable, reason (why not).");
  m.def("active_isa", &active_isa, py::call_guard<py::gil_scoped_release>(),
        "Name of the row in use; the first call runs its self-test. ValueError if BITINFER_ISA "
        "names no usable row.");
  m.def("set_isa", &set_isa, py::arg("name"), py::call_guard<py::gil_scoped_release>(),
        "Use another row from now on. ValueError, listing the choices, if it is unknown or cannot "
        "run here.");
  m.def(
      "gemv_family",
      [](const std::string& packing) {
        return family_name(gemv_for(packing_from_name(packing)).family);
      },
      py::arg("packing"), "\"addsub\" or \"dot\": the GEMV family in use for this packing.");
  m.def("set_gemv", &set_gemv, py::arg("family"),
        "Force the GEMV family: \"auto\", \"addsub\" or \"dot\".");
  m.def(
      "auto_packing", [] { return layout(active_table().auto_packing).name; },
      "The packing that is fastest on the row in use.");
  m.def("self_test", &self_test, py::arg("isa"), py::call_guard<py::gil_scoped_release>(),
        "Run a row's kernels against scalar on random tiles: \"\" or the first mismatch.");
  m.def("dispatch_notes", &dispatch_notes, "Rows that failed their self-test, one sentence each.");
}

}  // namespace bitinfer
