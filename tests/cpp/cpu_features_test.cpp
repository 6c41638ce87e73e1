// A CPU whose operating system does not save wide registers must not be given kernels that use
// them.
#include "dispatch/cpu_features.h"

#include "expect.h"

namespace bitinfer_test {
namespace {

using bitinfer::CpuFeatures;
using bitinfer::why_unusable;

constexpr uint32_t kLeaf1Ecx = 1u << 9 | 1u << 12 | 1u << 19 | 1u << 27 | 1u << 28 | 1u << 29;
constexpr uint32_t kLeaf7Ebx = 1u << 5 | 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
constexpr uint32_t kLeaf7Ecx = 1u << 1 | 1u << 8 | 1u << 11;
constexpr uint32_t kLeaf7Edx = 1u << 24 | 1u << 25;
constexpr uint32_t kLeaf71Eax = 1u << 4;
constexpr uint32_t kSse = bitinfer::kSsse3 | bitinfer::kSse41;
constexpr uint32_t kAvx = bitinfer::kAvx2 | bitinfer::kF16C | bitinfer::kFma;
constexpr uint32_t kYmm = kAvx | bitinfer::kAvxVnni;
constexpr uint32_t kAvx512 = bitinfer::kAvx512F | bitinfer::kAvx512BW | bitinfer::kAvx512VL |
                             bitinfer::kAvx512DQ | bitinfer::kAvx512VNNI | bitinfer::kAvx512VBMI |
                             bitinfer::kGfni;
constexpr uint32_t kAmx = bitinfer::kAmxTile | bitinfer::kAmxInt8;

void expect_usable(uint64_t xcr0, uint32_t usable, bool tiles_granted = true) {
  const CpuFeatures got = bitinfer::x86_features(
      {kLeaf1Ecx, kLeaf7Ebx, kLeaf7Ecx, kLeaf7Edx, kLeaf71Eax, xcr0, tiles_granted});
  EXPECT(got.cpu == (kSse | kYmm | kAvx512 | kAmx), "xcr0 %#x: %#x", unsigned(xcr0), got.cpu);
  EXPECT(got.usable == usable, "xcr0 %#x: got %#x, not %#x", unsigned(xcr0), got.usable, usable);
}

void expect_why(uint32_t needs, CpuFeatures features, const std::string& text) {
  const std::string got = why_unusable(needs, features);
  EXPECT(got == text, "got \"%s\", not \"%s\"", got.c_str(), text.c_str());
}

}  // namespace
}  // namespace bitinfer_test

int main() {
  using namespace bitinfer_test;
  expect_usable(0x0, kSse);
  expect_usable(0x2, kSse);          // SSE alone
  expect_usable(0x7, kSse | kYmm);   // x87, SSE, AVX
  expect_usable(0x67, kSse | kYmm);  // ZMM16-31 are not saved
  expect_usable(0xe7, kSse | kYmm | kAvx512);
  expect_usable(0x600e7, kSse | kYmm | kAvx512 | kAmx);
  expect_usable(0x600e7, kSse | kYmm | kAvx512, false);  // Linux refused tiles to the process
  // Without their base, the bits of the others mean nothing.
  EXPECT(bitinfer::x86_features({0, ~(1u << 16), ~0u, 0, ~0u, 0xff, false}).cpu == 0,
         "no AVX, no AVX-512");

  expect_why(kSse | kAvx, {kSse | kAvx, kSse | kAvx}, "");
  expect_why(kSse | kAvx, {kSse, kSse}, "lacks avx2, f16c, fma");
  expect_why(kSse | kAvx, {kSse | kAvx, kSse},
             "lacks the operating system's support of avx2, f16c, fma");
  expect_why(kAvx | bitinfer::kAvx512F, {kSse | kAvx, kSse},
             "lacks avx512f and the operating system's support of avx2, f16c, fma");
  return 0;
}
