// splitmix64: every seed gives the same self-test inputs on every machine.
#pragma once

#include <cstdint>

namespace bitinfer {

struct Random {
  uint64_t state;
  uint32_t operator()() {
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return static_cast<uint32_t>(z >> 32);
  }
};

}  // namespace bitinfer
