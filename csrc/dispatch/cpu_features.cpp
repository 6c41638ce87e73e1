// cpuid + xgetbv on x86, hardware capabilities on Arm.
#include "dispatch/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#ifndef HWCAP2_I8MM  // Linux 5.10's headers
#define HWCAP2_I8MM (1 << 13)
#endif
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

namespace bitinfer {
namespace {

#if defined(__x86_64__)

struct CpuidLeaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf cpuid(uint32_t leaf, uint32_t subleaf = 0) {  // all zero where the CPU has no such leaf
  CpuidLeaf r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// Register states that the OS saves; 0 without OSXSAVE. Assembly, as the intrinsic would need
// -mxsave.
uint64_t xcr0(uint32_t leaf1_ecx) {
  if (!(leaf1_ecx & (1u << 27))) return 0;
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Asks Linux, once a process, to save AMX tiles (Documentation/arch/x86/xstate.rst): it grants them
// to those who ask only, as they make every context switch dearer.
bool ask_for_tiles() {
#if defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures detect() {
  const CpuidLeaf leaf1 = cpuid(1);
  const CpuidLeaf leaf7 = cpuid(7);
  X86Registers found{
      leaf1.ecx,       leaf7.ebx, leaf7.ecx, leaf7.edx, leaf7.eax ? cpuid(7, 1).eax : 0,
      xcr0(leaf1.ecx), true};
  if (x86_features(found).usable & kAmxTile) found.tiles_granted = ask_for_tiles();
  return x86_features(found);
}

#elif defined(__aarch64__)

CpuFeatures detect() {
#if defined(__linux__)
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  const uint32_t found = (first & HWCAP_ASIMD ? uint32_t{kNeon} : 0u) |
                         (first & HWCAP_ASIMDDP ? uint32_t{kDotProd} : 0u) |
                         (second & HWCAP2_I8MM ? uint32_t{kI8mm} : 0u);
#elif defined(__APPLE__)
  const auto has = [](const char* name) {
    int value = 0;
    std::size_t size = sizeof(value);
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
  };
  uint32_t found = kNeon;  // every Apple aarch64 has it
  if (has("hw.optional.arm.FEAT_DotProd")) found |= kDotProd;
  if (has("hw.optional.arm.FEAT_I8MM")) found |= kI8mm;
#else
  const uint32_t found = kNeon;
#endif
  return {found, found};
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

CpuFeatures cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

CpuFeatures x86_features(const X86Registers& r) {
  constexpr uint64_t kYmmState = 0x6;       // XMM and the upper halves of YMM
  constexpr uint64_t kZmmState = 0xe6;      // + mask registers, upper halves of ZMM0-15, ZMM16-31
  constexpr uint64_t kTileState = 0x60000;  // tile configuration and data
  CpuFeatures found;
  // A bit of a cpuid register, and the states without which its instructions fault.
  const auto add = [&](uint32_t reg, int bit, uint64_t state, uint32_t feature) {
    if (!(reg & (1u << bit))) return;
    found.cpu |= feature;
    if ((r.xcr0 & state) == state && (state != kTileState || r.tiles_granted))
      found.usable |= feature;
  };
  add(r.leaf1_ecx, 9, 0, kSsse3);
  add(r.leaf1_ecx, 19, 0, kSse41);
  if (r.leaf1_ecx & (1u << 28)) {  // AVX
    add(r.leaf1_ecx, 12, kYmmState, kFma);
    add(r.leaf1_ecx, 29, kYmmState, kF16C);
    add(r.leaf7_ebx, 5, kYmmState, kAvx2);
    add(r.leaf7_1_eax, 4, kYmmState, kAvxVnni);
  }
  if (r.leaf7_ebx & (1u << 16)) {
    add(r.leaf7_ebx, 16, kZmmState, kAvx512F);
    add(r.leaf7_ebx, 17, kZmmState, kAvx512DQ);
    add(r.leaf7_ebx, 30, kZmmState, kAvx512BW);
    add(r.leaf7_ebx, 31, kZmmState, kAvx512VL);
    add(r.leaf7_ecx, 1, kZmmState, kAvx512VBMI);
    add(r.leaf7_ecx, 8, kZmmState, kGfni);
    add(r.leaf7_ecx, 11, kZmmState, kAvx512VNNI);
  }
  add(r.leaf7_edx, 24, kTileState, kAmxTile);
  add(r.leaf7_edx, 25, kTileState, kAmxInt8);
  return found;
}

std::string feature_names(uint32_t features) {
  constexpr const char* kNames[] = {"ssse3",    "sse4.1",   "avx2",     "f16c",       "avx512f",
                                    "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512vbmi",
                                    "neon",     "amx-tile", "amx-int8", "avxvnni",    "fma",
                                    "dotprod",  "i8mm",     "gfni"};
  std::string text;
  uint32_t bit = 1;
  for (const char* name : kNames) {
    if (features & bit) text += (text.empty() ? "" : ", ") + std::string(name);
    bit <<= 1;
  }
  return text;
}

std::string why_unusable(uint32_t needs, CpuFeatures features) {
  const uint32_t missing = needs & ~features.cpu;
  const uint32_t unsaved = needs & features.cpu & ~features.usable;
  std::string text = missing || unsaved ? "lacks " : "";
  if (missing) text += feature_names(missing);
  if (missing && unsaved) text += " and ";
  if (unsaved) text += "the operating system's support of " + feature_names(unsaved);
  return text;
}

}  // namespace bitinfer
