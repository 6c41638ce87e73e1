// Scales and signs of float matrices that are ternary already, row by row on the stored bits.
#include "pack/scaled.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "pack/pack.h"
#include "threads/thread_pool.h"
#include "util/atomic_min.h"

namespace bitinfer {
namespace {

constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();
constexpr int64_t kGrain = 8;  // rows

template <typename Bits>
constexpr Bits magnitude_of(Bits bits) {  // without its sign
  return static_cast<Bits>(bits & (std::numeric_limits<Bits>::max() >> 1));
}

template <typename Bits>
Bits magnitude(const uint8_t* row, int64_t col) {
  Bits bits;
  std::memcpy(&bits, row + col * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
  return magnitude_of(bits);
}

// Magnitude bits of infinity, the least that are no number.
template <typename Bits>
constexpr Bits infinity(FloatType type) {
  return static_cast<Bits>(type == FloatType::kF32   ? 0x7f800000u
                           : type == FloatType::kF16 ? 0x7c00u
                                                     : 0x7f80u);
}

// The magnitude of columns [begin, end) in `out`; the column of the first other one, or `end`.
template <typename Bits>
int64_t one_magnitude(const uint8_t* row, int64_t begin, int64_t end, Bits limit, Bits* out) {
  int64_t col = begin;
  while (col < end && magnitude<Bits>(row, col) == 0) ++col;
  *out = col < end ? magnitude<Bits>(row, col) : Bits{0};
  if (*out >= limit) return col;
  unsigned other = 0;
  for (int64_t c = col; c < end; ++c) {
    const Bits m = magnitude<Bits>(row, c);
    other |= static_cast<unsigned>(m != 0) & static_cast<unsigned>(m != *out);
  }
  if (other == 0) return end;
  while (magnitude<Bits>(row, col) == 0 || magnitude<Bits>(row, col) == *out) ++col;
  return col;
}

template <typename Bits>
int64_t magnitudes_of(const FloatMatrix& w, int64_t group, uint8_t* magnitudes, int num_threads) {
  const Bits limit = infinity<Bits>(w.type);
  std::atomic<int64_t> bad{kNowhere};
  parallel_for(resolve_num_threads(num_threads), 0, w.n, kGrain,
               [&](int64_t begin, int64_t end, int) {
                 for (int64_t row = begin; row < end && row * w.k < bad; ++row) {
                   const uint8_t* from = w.data + row * w.k * static_cast<int64_t>(sizeof(Bits));
                   for (int64_t col = 0, g = 0; col < w.k; col += group, ++g) {
                     const int64_t stop = std::min(col + group, w.k);
                     Bits m;
                     const int64_t at = one_magnitude<Bits>(from, col, stop, limit, &m);
                     if (at < stop) take_min(bad, row * w.k + at);
                     std::memcpy(magnitudes + (g * w.n + row) * static_cast<int64_t>(sizeof(Bits)),
                                 &m, sizeof(Bits));
                   }
                 }
               });
  return bad == kNowhere ? -1 : bad.load();
}

template <typename Bits>
void signs_of(const FloatMatrix& w, int8_t* codes, int num_threads) {
  constexpr int kSignBit = 8 * sizeof(Bits) - 1;
  const uint8_t* const data = w.data;
  const int64_t k = w.k;
  parallel_for(
      resolve_num_threads(num_threads), 0, w.n, kGrain, [&](int64_t begin, int64_t end, int) {
        const uint8_t* __restrict from = data + begin * k * static_cast<int64_t>(sizeof(Bits));
        int8_t* __restrict to = codes + begin * k;
        for (int64_t i = 0; i < (end - begin) * k; ++i) {
          Bits bits;
          std::memcpy(&bits, from + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
          const int used = static_cast<int>(magnitude_of(bits) != 0);
          to[i] = static_cast<int8_t>(used - 2 * (used & static_cast<int>(bits >> kSignBit)));
        }
      });
}

}  // namespace

int64_t group_magnitudes(const FloatMatrix& w, int64_t group, uint8_t* magnitudes,
                         int num_threads) {
  return w.type == FloatType::kF32 ? magnitudes_of<uint32_t>(w, group, magnitudes, num_threads)
                                   : magnitudes_of<uint16_t>(w, group, magnitudes, num_threads);
}

void signs(const FloatMatrix& w, int8_t* codes, int num_threads) {
  if (w.type == FloatType::kF32) {
    signs_of<uint32_t>(w, codes, num_threads);
  } else {
    signs_of<uint16_t>(w, codes, num_threads);
  }
}

}  // namespace bitinfer
