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
};

// Bits that the CPU has and the OS supports (AVX state and AVX-512 state enabled in XCR0).
uint32_t cpu_features();

// "avx512f, avx512vnni" for the bits of `features`.
std::string feature_names(uint32_t features);

}  // namespace bitinfer
