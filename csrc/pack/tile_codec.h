// One K-block of one tile to and from int8 weights, and the test for impossible codes. Private to
// pack/.
//
// w points at the tile's first row, column 0 of the block; rows lie `stride` apart. decode may
// write up to kCodecSlack bytes past a row's last column. Plain C++: the kernels have their own
// unpacking.
#pragma once

#include <cstdint>
#include <cstring>

#include "pack/format.h"

namespace bitinfer {
namespace codec {

constexpr int64_t kCodecSlack = 8;

// Sign-magnitude packed value -> trits, most significant first; impossible magnitudes decode to
// zeros.
struct TritTables {
  int8_t t3[32][8];   // index: magnitude | sign << 4; 3 trits
  int8_t t5[256][8];  // index: packed byte; 5 trits
};

constexpr TritTables make_trit_tables() {
  TritTables t{};
  for (int index = 0; index < 256; ++index) {
    const int magnitude = index & 127;
    int v = magnitude > 121 ? 0 : (index & 128) ? -magnitude : magnitude;
    int8_t trits[5] = {};
    for (int i = 4; i >= 0; --i) {
      const int digit = (v + 244) % 3 - 1;  // balanced remainder: v = 3 * quotient + digit
      trits[i] = static_cast<int8_t>(digit);
      v = (v - digit) / 3;
    }
    for (int i = 0; i < 5; ++i) t.t5[index][i] = trits[i];
    if (magnitude < 14) {
      for (int i = 0; i < 3; ++i) t.t3[magnitude | (index & 128) >> 3][i] = trits[2 + i];
    }
  }
  return t;
}
inline constexpr TritTables kTritTables = make_trit_tables();

// ---- i2 ----

inline void encode_i2(const int8_t* w, uint8_t* block) {
  for (int p = 0; p < 64; ++p) {
    block[p] = static_cast<uint8_t>((w[p] + 1) | (w[64 + p] + 1) << 2 | (w[128 + p] + 1) << 4 |
                                    (w[192 + p] + 1) << 6);
  }
}

inline void decode_i2(const uint8_t* block, int8_t* w) {
  for (int g = 0; g < 4; ++g) {
    for (int p = 0; p < 64; ++p)
      w[64 * g + p] = static_cast<int8_t>(((block[p] >> (2 * g)) & 3) - 1);
  }
}

inline bool bad_i2(const uint8_t* block) {
  unsigned bad = 0;
  for (int p = 0; p < 64; ++p) bad |= block[p] & (block[p] >> 1) & 0x55u;
  return bad != 0;
}

// ---- t3 ----

inline void encode_t3(const int8_t* w, int64_t stride, uint8_t* block) {
  for (int r = 0; r < 32; ++r, w += stride) {
    int signs = 0;
    for (int i = 0; i < 4; ++i) {
      const int8_t* x = w + 6 * i;
      const int even = (x[0] * 3 + x[1]) * 3 + x[2];
      const int odd = (x[3] * 3 + x[4]) * 3 + x[5];
      const int even_sign = even >> 31;  // -1 or 0: random signs would miss every other branch
      const int odd_sign = odd >> 31;
      block[32 * i + r] = static_cast<uint8_t>(((even ^ even_sign) - even_sign) |
                                               ((odd ^ odd_sign) - odd_sign) << 4);
      signs = signs << 2 | (even_sign & 2) | (odd_sign & 1);
    }
    block[128 + r] = static_cast<uint8_t>(signs);
  }
}

inline void decode_t3(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < 32; ++r, w += stride) {
    const int signs = block[128 + r];
    for (int j = 0; j < 8; ++j) {
      const int magnitude = (block[32 * (j / 2) + r] >> (4 * (j % 2))) & 15;
      std::memcpy(w + 3 * j, kTritTables.t3[magnitude | ((signs >> (7 - j)) & 1) << 4], 8);
    }
  }
}

// Bytes are tested against each other in the sign bit's place, so that compilers make 16 tests of
// one.
inline bool bad_t3(const uint8_t* block) {
  uint8_t bad = 0;
  for (int i = 0; i < 4; ++i) {
    for (int r = 0; r < 32; ++r) {
      const auto even = static_cast<uint8_t>(block[32 * i + r] & 15);
      const auto odd = static_cast<uint8_t>(block[32 * i + r] >> 4);
      const auto signs = static_cast<uint8_t>(block[128 + r] << (2 * i));
      const auto above = static_cast<uint8_t>((even + 2) | (odd + 2));  // bit 4: above 13
      const auto even_zero = static_cast<uint8_t>((even - 1) & signs);  // bit 7: zero and negative
      const auto odd_zero = static_cast<uint8_t>((odd - 1) & (signs << 1));
      bad = static_cast<uint8_t>(bad | (above & 16) | ((even_zero | odd_zero) & 128));
    }
  }
  return bad != 0;
}

// ---- t5 ----

inline void encode_t5(const int8_t* w, int64_t stride, uint8_t* block) {
  for (int r = 0; r < 64; ++r, w += stride) {
    const int v = (((w[0] * 3 + w[1]) * 3 + w[2]) * 3 + w[3]) * 3 + w[4];
    const int sign = v >> 31;  // -1 or 0: random signs would miss every other branch
    block[r] = static_cast<uint8_t>(((v ^ sign) - sign) | (sign & 128));
  }
}

inline void decode_t5(const uint8_t* block, int8_t* w, int64_t stride) {
  for (int r = 0; r < 64; ++r, w += stride) std::memcpy(w, kTritTables.t5[block[r]], 8);
}

inline bool bad_t5(const uint8_t* block) {
  unsigned bad = 0;
  for (int r = 0; r < 64; ++r) {
    bad |= static_cast<unsigned>((block[r] & 127) > 121) | static_cast<unsigned>(block[r] == 128);
  }
  return bad != 0;
}

// ---- by packing ----

inline void encode_block(Packing packing, const int8_t* w, int64_t stride, uint8_t* block) {
  if (packing == Packing::kI2) encode_i2(w, block);
  if (packing == Packing::kT3) encode_t3(w, stride, block);
  if (packing == Packing::kT5) encode_t5(w, stride, block);
}

inline void decode_block(Packing packing, const uint8_t* block, int8_t* w, int64_t stride) {
  if (packing == Packing::kI2) decode_i2(block, w);
  if (packing == Packing::kT3) decode_t3(block, w, stride);
  if (packing == Packing::kT5) decode_t5(block, w, stride);
}

inline bool bad_block(Packing packing, const uint8_t* block) {
  if (packing == Packing::kI2) return bad_i2(block);
  return packing == Packing::kT3 ? bad_t3(block) : bad_t5(block);
}

}  // namespace codec
}  // namespace bitinfer
