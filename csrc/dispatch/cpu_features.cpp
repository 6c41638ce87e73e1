// cpuid + xgetbv on x86, hardware capabilities on Arm.
#include "dispatch/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace bitinfer {
namespace {

#if defined(__x86_64__)

struct CpuidLeaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf cpuid(uint32_t leaf) {  // all zero where the CPU has no such leaf
  CpuidLeaf r;
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
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

uint32_t detect() {
  constexpr uint64_t kYmmState = 0x6;   // XMM and the upper halves of YMM
  constexpr uint64_t kZmmState = 0xe6;  // + mask registers, upper halves of ZMM0-15, ZMM16-31
  const CpuidLeaf leaf1 = cpuid(1);
  const CpuidLeaf leaf7 = cpuid(7);
  const uint64_t saved = xcr0(leaf1.ecx);
  uint32_t found = 0;
  const auto add = [&found](uint32_t reg, int bit, uint32_t feature) {
    if (reg & (1u << bit)) found |= feature;
  };
  add(leaf1.ecx, 9, kSsse3);
  add(leaf1.ecx, 19, kSse41);
  if ((saved & kYmmState) == kYmmState && (leaf1.ecx & (1u << 28))) {
    add(leaf1.ecx, 29, kF16C);
    add(leaf7.ebx, 5, kAvx2);
  }
  if ((saved & kZmmState) == kZmmState && (leaf7.ebx & (1u << 16))) {
    found |= kAvx512F;
    add(leaf7.ebx, 17, kAvx512DQ);
    add(leaf7.ebx, 30, kAvx512BW);
    add(leaf7.ebx, 31, kAvx512VL);
    add(leaf7.ecx, 1, kAvx512VBMI);
    add(leaf7.ecx, 11, kAvx512VNNI);
  }
  return found;
}

#elif defined(__aarch64__)

uint32_t detect() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMD) ? uint32_t{kNeon} : 0u;
#else
  return kNeon;  // every Apple aarch64 has it
#endif
}

#else

uint32_t detect() { return 0; }

#endif

}  // namespace

uint32_t cpu_features() {
  static const uint32_t features = detect();
  return features;
}

std::string feature_names(uint32_t features) {
  constexpr const char* kNames[] = {"ssse3",      "sse4.1",     "avx2",     "f16c",
                                    "avx512f",    "avx512bw",   "avx512vl", "avx512dq",
                                    "avx512vnni", "avx512vbmi", "neon"};
  std::string text;
  uint32_t bit = 1;
  for (const char* name : kNames) {
    if (features & bit) text += (text.empty() ? "" : ", ") + std::string(name);
    bit <<= 1;
  }
  return text;
}

}  // namespace bitinfer
