"""Float tensors of GGUF: F32, F16, BF16, and the blocks Q8_0, Q6_K, Q4_0 and Q4_1, as float32.

Each value is computed in the order of ggml's own code, so that it has the same bits.
Source: ggml-org/ggml, src/ggml-quants.c, dequantize_row_*.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitinfer.formats.gguf_blocks import Bytes, half
from bitinfer.formats.safetensors import as_float32

Floats = NDArray[np.float32]


def decode_q8_0(blocks: Bytes) -> Floats:
    """34 bytes of 32 weights: fp16 d, int8 q; d·q."""
    return half(blocks, 0)[:, None] * blocks[:, 2:].view(np.int8)


def decode_q4_0(blocks: Bytes) -> Floats:
    """18 bytes of 32 weights: fp16 d, nibbles q; d·(q − 8)."""
    return half(blocks, 0)[:, None] * (_nibbles(blocks[:, 2:]) - np.float32(8))


def decode_q4_1(blocks: Bytes) -> Floats:
    """20 bytes of 32 weights: fp16 d and m, nibbles q; d·q + m."""
    return half(blocks, 0)[:, None] * _nibbles(blocks[:, 4:]) + half(blocks, 2)[:, None]


def decode_q6_k(blocks: Bytes) -> Floats:
    """210 bytes of 256 weights: nibbles, pairs of bits, 16 int8 scales s, fp16 d; d·s·(q − 32).

    A half of 128 weights has 64 bytes of nibbles and 32 of pairs: weight 32·i + j takes nibble
    i // 2 of byte 32·(i % 2) + j and pair i of byte j.
    """
    nibbles = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 2, 4, 32)
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    high = (pairs >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    codes = (low | high << 4).astype(np.int8) - np.int8(32)
    scales = half(blocks, 208)[:, None] * blocks[:, 192:208].view(np.int8)
    values: Floats = scales[:, :, None] * codes.reshape(-1, 16, 16)
    return values.reshape(-1, 256)


def _nibbles(codes: Bytes) -> Floats:
    """The low nibbles of each row, then the high ones."""
    return np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.float32)


# Type name -> decoder of bytes (blocks, block_bytes) to float32 (blocks, block).
FLOAT_BLOCKS: dict[str, Callable[[Bytes], Floats]] = {
    **{
        name: lambda blocks, name=name: as_float32(blocks, name)[:, None]  # type: ignore[misc]
        for name in ("F32", "F16", "BF16")
    },
    "Q8_0": decode_q8_0,
    "Q6_K": decode_q6_k,
    "Q4_0": decode_q4_0,
    "Q4_1": decode_q4_1,
}
