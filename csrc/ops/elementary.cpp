// Cody-Waite reduction and Taylor series, long enough that the cut is below double's rounding.
#include "ops/elementary.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace bitinfer {
namespace {

constexpr double kRoundMagic = 0x1.8p52;  // x + magic - magic rounds x to an integer, half to even

double round_even(double x) { return (x + kRoundMagic) - kRoundMagic; }

// pi / 2 in pieces of 29 bits, so that a product with an integer below 2^24 is exact.
constexpr double kHalfPi1 = 0x1.921fb54p+0, kHalfPi2 = 0x1.10b4611p-30,
                 kHalfPi3 = 0x1.4c4c6628b80dcp-59;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;

// Odd series from r^3 / 3! on and even series from r^2 / 2! on, last term first.
constexpr double kSin[] = {
    -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
    -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
constexpr double kCos[] = {
    1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
    1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0,        -1.0 / 2.0};

template <int n>
double horner(const double (&c)[n], double x) {
  double p = c[0];
  for (int i = 1; i < n; ++i) p = p * x + c[i];
  return p;
}

constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;  // high: 32 bits

// ln(x) for normal x: x = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1)).
double ln(double x) {
  int e = 0;
  double m = std::frexp(x, &e);  // exact
  if (m < 0x1.6a09e667f3bcdp-1) {
    m = m * 2.0;
    e = e - 1;
  }
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double p = 1.0 / 23.0;
  for (int odd = 21; odd >= 3; odd -= 2) p = p * s2 + 1.0 / static_cast<double>(odd);
  const double series = 2.0 * s + 2.0 * s * (s2 * p);
  return static_cast<double>(e) * kLn2High + (static_cast<double>(e) * kLn2Low + series);
}

// exp(y) for |y| < 708.
double exp_double(double y) {
  const double n = round_even(y * 0x1.71547652b82fep+0);
  const double r = (y - n * kLn2High) - n * kLn2Low;
  double p = 1.0;
  for (int i = 14; i >= 1; --i) p = p * (r / static_cast<double>(i)) + 1.0;
  return std::ldexp(p, static_cast<int>(n));  // exact: the result is normal
}

}  // namespace

void sin_cos(const float* angles, int64_t n, float* sin, float* cos) {
  for (int64_t i = 0; i < n; ++i) {
    const double x = static_cast<double>(angles[i]);
    if (!(x <= 0x1p24 && x >= -0x1p24)) {
      sin[i] = cos[i] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    const double q = round_even(x * kTwoOverPi);
    const double r = ((x - q * kHalfPi1) - q * kHalfPi2) - q * kHalfPi3, r2 = r * r;
    const double s = r + r * (r2 * horner(kSin, r2)), c = 1.0 + r2 * horner(kCos, r2);
    const int64_t quadrant = static_cast<int64_t>(q) & 3;
    const double sin_x = quadrant & 1 ? c : s, cos_x = quadrant & 1 ? s : c;
    sin[i] = static_cast<float>(quadrant & 2 ? -sin_x : sin_x);
    cos[i] = static_cast<float>((quadrant + 1) & 2 ? -cos_x : cos_x);
  }
}

double pow(double base, double exponent) {
  if (!(base > 0.0) || !std::isfinite(base) || !std::isfinite(exponent)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double y = exponent * ln(base);
  if (y > 708.0) return std::numeric_limits<double>::infinity();
  if (y < -708.0) return 0.0;
  return exp_double(y);
}

}  // namespace bitinfer
