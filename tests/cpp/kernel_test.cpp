// Every integer kernel of every row that this CPU can run against plain loops, each buffer against
// a guard page.
//
//   kernel_test [--quick] [ISA ...]     --quick: fewer sizes, for emulators
//   kernel_test --rows                  only prints the rows
#include <csignal>

#include "dispatch/dispatch.h"
#include "kernel_tester.h"

namespace bitinfer_test {
namespace {

extern "C" void report_fault(int) {
  const char text[] = "kernel_test: memory outside of a buffer touched by ";
  static_cast<void>(!write(STDERR_FILENO, text, sizeof(text) - 1));
  static_cast<void>(!write(STDERR_FILENO, current_check, std::strlen(current_check)));
  static_cast<void>(!write(STDERR_FILENO, "\n", 1));
  _exit(1);
}

}  // namespace
}  // namespace bitinfer_test

int main(int argc, char** argv) {
  using namespace bitinfer_test;
  std::signal(SIGSEGV, report_fault);
  std::signal(SIGBUS, report_fault);
  std::vector<std::string> isas;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      quick = true;
    } else if (std::strcmp(argv[i], "--rows") == 0) {
      for (const std::string& isa : bitinfer::available_isas()) std::printf("%s\n", isa.c_str());
      return 0;
    } else {
      isas.push_back(argv[i]);
    }
  }
  if (isas.empty()) isas = bitinfer::available_isas();
  for (const std::string& isa : isas) {
    const int64_t before = num_checks;
    KernelTester tester(isa, bitinfer::table_of(isa));
    tester.run_ternary();
    tester.run_int8();
    std::printf("%s: %lld checks\n", isa.c_str(), static_cast<long long>(num_checks - before));
    std::fflush(stdout);
  }
  return 0;
}
