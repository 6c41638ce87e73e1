// The Python extension module _core: only register_* calls, one binding file each.
#include <pybind11/pybind11.h>

#include "bindings/register.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "bitinfer's native core: packing, kernels, the decoder.";
  m.attr("__version__") = BITINFER_VERSION;
  m.attr("compiler") = BITINFER_COMPILER;
  bitinfer::register_isa(m);
  bitinfer::register_pack(m);
  bitinfer::register_scaled(m);
  bitinfer::register_head(m);
  bitinfer::register_ops(m);
  bitinfer::register_kv_cache(m);
  bitinfer::register_model(m);
  bitinfer::register_sampling(m);
}
