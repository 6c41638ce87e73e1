// The choice of the ISA row and of the GEMV family, once per process.
//
// BITINFER_ISA=<name> forces a row and BITINFER_GEMV=auto|addsub|dot a family; a name that does not
// exist or that this machine cannot run is kept as an error that every use throws, until set_isa /
// set_gemv names a good one. All functions are thread-safe; errors are std::invalid_argument.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"

namespace bitinfer {

struct IsaStatus {
  std::string name;
  bool usable;
  std::string reason;  // why not; empty when usable
};

struct GemvChoice {
  GemvFamily family;
  GemvFn fn;
  int64_t most_tokens;  // up to as many take a GEMV each; more, a GEMM
  int streams;          // far-apart runs of tiles that a task walks
  bool needs_tables;    // Activation::tables must be filled by active_table().build_tables[packing]
};

std::vector<IsaStatus> isa_report();                   // every row of this architecture, best first
std::vector<std::string> available_isas();             // the usable ones, best first
const char* available_isa_name(std::size_t index);     // null past the last
const KernelTable& table_of(const std::string& name);  // lives for ever; not self-tested

// The row in use. The first call picks it and runs its self-test; a row that fails is replaced by
// the next lower usable one and dispatch_notes() says so.
const KernelTable& active_table();
const char* active_isa();
void set_isa(const std::string& name);
std::vector<std::string> dispatch_notes();

// Family and function of active_table(): the family that is forced, else the preferred one, else
// the row's own choice.
GemvChoice gemv_for(Packing packing, std::optional<GemvFamily> preferred = std::nullopt);
GemvChoice gemv_of(const KernelTable& table, Packing packing, GemvFamily family);
void set_gemv(const std::string& family);  // "auto", "addsub", "dot"
GemvFamily family_from_name(const std::string& name);
const char* family_name(GemvFamily family);

std::string self_test(const std::string& isa);  // empty, or the first mismatch with the scalar row

}  // namespace bitinfer
