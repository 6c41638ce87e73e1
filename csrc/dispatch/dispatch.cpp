// The array of ISA rows, and the state of the choice.
#include "dispatch/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <optional>

#include "dispatch/cpu_features.h"
#include "dispatch/self_test.h"
#include "util/check.h"

#if defined(__x86_64__)
#define BITINFER_X86 1
#elif defined(__aarch64__)
#define BITINFER_ARM64 1
#endif

namespace bitinfer {

// clang-format off
namespace scalar { KernelTable make_kernel_table(); }
#if BITINFER_X86
namespace sse41 { KernelTable make_kernel_table(); }
namespace avx2 { KernelTable make_kernel_table(); }
#if BITINFER_AVXVNNI
namespace avxvnni { KernelTable make_kernel_table(); }
#endif
namespace avx512vnni { KernelTable make_kernel_table(); }
namespace avx512vbmi { KernelTable make_kernel_table(); }
#if BITINFER_AMX
namespace amx { KernelTable make_kernel_table(); }
#endif
#elif BITINFER_ARM64
namespace neon { KernelTable make_kernel_table(); }
namespace neondot { KernelTable make_kernel_table(); }
namespace neoni8mm { KernelTable make_kernel_table(); }
#endif
// clang-format on

namespace {

struct IsaRow {
  const char* name;
  uint32_t needs;  // CpuFeature bits; the same set as the row's flags in CMakeLists.txt
  KernelTable (*make_table)();  // called only where the bits are there
};

// Best first, by benchmark records; the first row whose bits the CPU and the OS both have is used.
#if BITINFER_X86
constexpr uint32_t kAvx2Row = kSsse3 | kSse41 | kAvx2 | kF16C | kFma;
constexpr uint32_t kAvx512Row =
    kAvx2Row | kAvx512F | kAvx512BW | kAvx512VL | kAvx512DQ | kAvx512VNNI;
constexpr uint32_t kVbmiRow = kAvx512Row | kAvx512VBMI | kGfni;
#endif
constexpr IsaRow kIsaRows[] = {
#if BITINFER_X86
#if BITINFER_AMX
    {"amx", kVbmiRow | kAmxTile | kAmxInt8, &amx::make_kernel_table},
#endif
    {"avx512vbmi", kVbmiRow, &avx512vbmi::make_kernel_table},
    {"avx512vnni", kAvx512Row, &avx512vnni::make_kernel_table},
#if BITINFER_AVXVNNI
    {"avxvnni", kAvx2Row | kAvxVnni, &avxvnni::make_kernel_table},
#endif
    {"avx2", kAvx2Row, &avx2::make_kernel_table},
    {"sse41", kSsse3 | kSse41, &sse41::make_kernel_table},
#elif BITINFER_ARM64
    {"neoni8mm", kNeon | kDotProd | kI8mm, &neoni8mm::make_kernel_table},
    {"neondot", kNeon | kDotProd, &neondot::make_kernel_table},
    {"neon", kNeon, &neon::make_kernel_table},
#endif
    {"scalar", 0, &scalar::make_kernel_table},
};
constexpr int kNumRows = static_cast<int>(std::size(kIsaRows));

bool usable(const IsaRow& row) { return (row.needs & ~cpu_features().usable) == 0; }

const KernelTable& table_of_row(int row) {
  static std::once_flag made[kNumRows];
  static KernelTable tables[kNumRows];
  std::call_once(made[row], [row] { tables[row] = kIsaRows[row].make_table(); });
  return tables[row];
}

// Index of the row called `name`; `subject` opens the error ("BITINFER_ISA", "isa").
int find_row(const std::string& name, const char* subject) {
  std::string choices;
  for (int row = 0; row < kNumRows; ++row) {
    if (name == kIsaRows[row].name && usable(kIsaRows[row])) return row;
    if (usable(kIsaRows[row]))
      choices += (choices.empty() ? "" : ", ") + std::string(kIsaRows[row].name);
  }
  for (const IsaRow& row : kIsaRows) {
    BITINFER_CHECK(name != row.name, subject << ": this machine cannot run " << name << ", it "
                                             << why_unusable(row.needs, cpu_features())
                                             << "; choose one of " << choices);
  }
  BITINFER_CHECK(false, subject << ": unknown row " << name << "; choose one of " << choices);
  return -1;
}

int best_row() {
  int row = 0;
  while (!usable(kIsaRows[row])) ++row;  // scalar needs nothing
  return row;
}

std::optional<GemvFamily> parse_gemv(const std::string& name, const char* subject) {
  if (name == "auto") return std::nullopt;
  if (name == "addsub") return GemvFamily::kAddsub;
  BITINFER_CHECK(name == "dot", subject << ": unknown GEMV family " << name
                                        << "; choose one of auto, addsub, dot");
  return GemvFamily::kDot;
}

// Everything that may change after the process has started. The table pointer is read without the
// lock.
struct Choice {
  std::mutex mutex;
  std::atomic<const KernelTable*> table{nullptr};  // of `row`, self-tested; null until first use
  int row = 0;                                     // wanted, then in use
  std::string isa_error;                           // BITINFER_ISA names no usable row
  std::atomic<int> family{-1};                     // GemvFamily, or -1 for auto
  std::string gemv_error;
  std::atomic<bool> gemv_failed{false};  // gemv_error is set
  std::vector<std::string> notes;

  Choice() {
    const char* isa = std::getenv("BITINFER_ISA");
    const char* gemv = std::getenv("BITINFER_GEMV");
    try {
      row = isa && *isa ? find_row(isa, "BITINFER_ISA") : best_row();
    } catch (const std::invalid_argument& error) {
      isa_error = error.what();
    }
    try {
      const auto forced = gemv && *gemv ? parse_gemv(gemv, "BITINFER_GEMV") : std::nullopt;
      family = forced ? static_cast<int>(*forced) : -1;
    } catch (const std::invalid_argument& error) {
      gemv_error = error.what();
      gemv_failed = true;
    }
  }
};

Choice& choice() {
  static Choice instance;
  return instance;
}

// Self-tests the wanted row and steps down until one passes. Needs the lock.
const KernelTable& settle(Choice& c) {
  std::vector<Candidate> candidates;
  for (int row = c.row; row < kNumRows; ++row) {
    if (usable(kIsaRows[row])) candidates.push_back({kIsaRows[row].name, &table_of_row(row)});
  }
  const Settled settled = step_down(candidates);
  if (!settled.note.empty()) c.notes.push_back(settled.note);
  c.row = find_row(candidates[settled.index].name, "isa");
  c.table.store(&table_of_row(c.row), std::memory_order_release);
  return table_of_row(c.row);
}

}  // namespace

std::vector<IsaStatus> isa_report() {
  std::vector<IsaStatus> report;
  for (const IsaRow& row : kIsaRows) {
    report.push_back({row.name, usable(row), why_unusable(row.needs, cpu_features())});
  }
  return report;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const IsaRow& row : kIsaRows) {
    if (usable(row)) names.push_back(row.name);
  }
  return names;
}

const char* available_isa_name(std::size_t index) {
  for (const IsaRow& row : kIsaRows) {
    if (usable(row) && index-- == 0) return row.name;
  }
  return nullptr;
}

const KernelTable& table_of(const std::string& name) { return table_of_row(find_row(name, "isa")); }

const KernelTable& active_table() {
  Choice& c = choice();
  if (const KernelTable* table = c.table.load(std::memory_order_acquire)) return *table;
  const std::lock_guard<std::mutex> lock(c.mutex);
  BITINFER_CHECK(c.isa_error.empty(), c.isa_error);
  if (const KernelTable* table = c.table.load(std::memory_order_relaxed)) return *table;
  return settle(c);
}

const char* active_isa() {
  active_table();
  Choice& c = choice();
  const std::lock_guard<std::mutex> lock(c.mutex);
  return kIsaRows[c.row].name;
}

void set_isa(const std::string& name) {
  const int row = find_row(name, "isa");
  Choice& c = choice();
  const std::lock_guard<std::mutex> lock(c.mutex);
  c.row = row;
  c.isa_error.clear();
  settle(c);
}

std::vector<std::string> dispatch_notes() {
  Choice& c = choice();
  const std::lock_guard<std::mutex> lock(c.mutex);
  return c.notes;
}

GemvChoice gemv_of(const KernelTable& table, Packing packing, GemvFamily family) {
  const int p = static_cast<int>(packing);
  const bool is_auto = family == table.auto_family[p];
  const int64_t tokens = is_auto ? table.gemv_tokens[p] : 1;
  if (family == GemvFamily::kDot)
    return {family, table.gemv_dot[p], tokens, table.dot_streams[p], false};
  return {family, table.gemv_addsub[p], tokens, table.addsub_streams[p],
          table.build_tables[p] != nullptr};
}

GemvChoice gemv_for(Packing packing, std::optional<GemvFamily> preferred) {
  const KernelTable& table = active_table();
  Choice& c = choice();
  if (c.gemv_failed) {
    const std::lock_guard<std::mutex> lock(c.mutex);
    BITINFER_CHECK(c.gemv_error.empty(), c.gemv_error);
  }
  const int forced = c.family;
  if (forced >= 0) return gemv_of(table, packing, static_cast<GemvFamily>(forced));
  return gemv_of(table, packing, preferred.value_or(table.auto_family[static_cast<int>(packing)]));
}

void set_gemv(const std::string& family) {
  const auto forced = parse_gemv(family, "gemv");
  Choice& c = choice();
  const std::lock_guard<std::mutex> lock(c.mutex);
  c.gemv_error.clear();
  c.gemv_failed = false;
  c.family = forced ? static_cast<int>(*forced) : -1;
}

GemvFamily family_from_name(const std::string& name) {
  const auto family = parse_gemv(name, "family");
  BITINFER_CHECK(family, "family: expected addsub or dot, got auto");
  return *family;
}

const char* family_name(GemvFamily family) { return family == GemvFamily::kDot ? "dot" : "addsub"; }

std::string self_test(const std::string& isa) {
  return compare_kernels(table_of(isa), table_of_row(kNumRows - 1));
}

}  // namespace bitinfer
