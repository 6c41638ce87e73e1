// The floating-point mode that exactness needs: round to nearest, subnormals neither flushed nor
// read as zero.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace bitinfer {

// Sets the mode for the calling thread and restores the previous one at the end of its life.
class FloatMode {
 public:
#if defined(__SSE2__)
  FloatMode() : saved_(_mm_getcsr()) {
    if ((saved_ & ~kFlags) != kDefault) _mm_setcsr(kDefault);
  }
  ~FloatMode() {
    if ((saved_ & ~kFlags) != kDefault) _mm_setcsr(saved_);
  }

 private:
  static constexpr uint32_t kDefault = 0x1f80;  // all exceptions masked
  static constexpr uint32_t kFlags = 0x3f;      // sticky exception flags, no mode
  uint32_t saved_;
#elif defined(__aarch64__)
  FloatMode() {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    if (saved_ != 0) __asm__ __volatile__("msr fpcr, %0" : : "r"(uint64_t{0}));
  }
  ~FloatMode() {
    if (saved_ != 0) __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_));
  }

 private:
  uint64_t saved_;
#else
  FloatMode() {}
  ~FloatMode() {}
#endif

 public:
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;
};

}  // namespace bitinfer
