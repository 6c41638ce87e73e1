// Pulls every function of bitinfer.h out of the static library into the shared one.
#include "c_api/bitinfer.h"

namespace {

using Function = void (*)();

// Unused but kept: a reference makes the linker take the object file that defines it.
[[gnu::used]] const Function kExports[] = {reinterpret_cast<Function>(&bitinfer_version)};

}  // namespace
