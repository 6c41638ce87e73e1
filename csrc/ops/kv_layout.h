// Where keys and values of a KV cache lie: blocks of kKvBlock positions; in a block (layer, kv
// head), each K, V and, for int8, their scales, one after the other (kernels/float_kernels.h,
// KvBlock).
#pragma once

#include <cstdint>

#include "kernels/float_kernels.h"
#include "pack/format.h"

namespace bitinfer {

struct KvLayout {
  KvType type;
  int64_t layers;
  int64_t kv_heads;
  int64_t head_dim;

  int64_t element_bytes() const { return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1; }
  int64_t k_bytes() const { return head_dim * kKvBlock * element_bytes(); }
  int64_t v_bytes() const { return round_up(head_dim, 16) * kKvBlock * element_bytes(); }
  int64_t scale_bytes() const { return type == KvType::kInt8 ? kKvBlock * 4 : 0; }
  int64_t head_bytes() const {
    return k_bytes() + v_bytes() + 2 * scale_bytes();
  }  // a multiple of 64
  int64_t block_bytes() const { return layers * kv_heads * head_bytes(); }

  KvBlock at(uint8_t* block, int64_t layer, int64_t head) const {
    uint8_t* k = block + (layer * kv_heads + head) * head_bytes();
    float* scales = reinterpret_cast<float*>(k + k_bytes() + v_bytes());
    return {k, k + k_bytes(), scales, scales + kKvBlock};
  }

  bool same_shape(const KvLayout& other) const {
    return layers == other.layers && kv_heads == other.kv_heads && head_dim == other.head_dim;
  }
};

}  // namespace bitinfer
