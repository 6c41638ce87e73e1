// The floating-point types that tensors of a checkpoint come in.
#pragma once

#include <cstdint>

namespace bitinfer {

enum class FloatType : int { kF32 = 0, kF16 = 1, kBF16 = 2 };

constexpr int64_t float_bytes(FloatType type) { return type == FloatType::kF32 ? 4 : 2; }

}  // namespace bitinfer
