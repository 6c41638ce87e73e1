// What this CPU can execute and this operating system saves on a context switch, as one bit set.
#pragma once

#include <cstdint>
#include <string>

namespace bitinfer {

enum CpuFeature : uint32_t {
  kSsse3 = 1u << 0,
  kSse41 = 1u << 1,
  kAvx2 = 1u << 2,
  kF16C = 1u << 3,
  kAvx512F = 1u << 4,
  kAvx512BW = 1u << 5,
  kAvx512VL = 1u << 6,
  kAvx512DQ = 1u << 7,
  kAvx512VNNI = 1u << 8,
  kAvx512VBMI = 1u << 9,
  kNeon = 1u << 10,
  kAmxTile = 1u << 11,
  kAmxInt8 = 1u << 12,
  kAvxVnni = 1u << 13,
  kFma = 1u << 14,
  kDotProd = 1u << 15,
  kI8mm = 1u << 16,
  kGfni = 1u << 17,
};

struct CpuFeatures {
  uint32_t cpu = 0;     // what the CPU has
  uint32_t usable = 0;  // of these what the OS supports too
};

// Of this machine, found once.
CpuFeatures cpu_features();

// What an x86 CPU tells.
struct X86Registers {
  uint32_t leaf1_ecx = 0;  // cpuid
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t leaf7_edx = 0;
  uint32_t leaf7_1_eax = 0;    // of subleaf 1
  uint64_t xcr0 = 0;           // register states that the OS saves, 0 without OSXSAVE
  bool tiles_granted = false;  // the process may use AMX tiles
};
CpuFeatures x86_features(const X86Registers& found);

// Why `needs` is more than can be used: "lacks avx512vbmi and the operating system's support of
// avx2"; empty if it is not.
std::string why_unusable(uint32_t needs, CpuFeatures features);

// "avx512f, avx512vnni" for the bits of `features`.
std::string feature_names(uint32_t features);

}  // namespace bitinfer
