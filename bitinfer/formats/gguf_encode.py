"""Ternary matrices as ggml stores them: TQ1_0, TQ2_0 and I2_S in blocks of 128.

What ``gguf_blocks`` and ``gguf_tiles`` decode. Source: ggml-org/ggml, src/ggml-quants.c,
quantize_row_tq1_0_ref and quantize_row_tq2_0_ref; microsoft/BitNet, src/ggml-bitnet-mad.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bitinfer.formats.gguf_types import SCALE_BYTES

Bytes = NDArray[np.uint8]
Trits = NDArray[np.int8]

BLOCKS = {"TQ1_0": 256, "TQ2_0": 256, "I2_S": 128}  # K must be a multiple
_CHUNK_WEIGHTS = 1 << 20  # encoded at once


def encode_ternary(kind: str, trits: Trits, scale: np.float32) -> Iterator[Bytes]:
    """Yield the bytes of a matrix in order.

    Args:
        kind: One of ``BLOCKS``.
        trits: int8 (N, K) in {-1, 0, 1}, K a multiple of the block.
        scale: What multiplies them. TQ1_0 and TQ2_0 round it to fp16.
    """
    n, k = trits.shape
    block = BLOCKS[kind]
    encode = _ENCODERS[kind]
    step = max(1, _CHUNK_WEIGHTS // k)
    for row in range(0, n, step):
        blocks = trits[row : row + step].reshape(-1, block)
        codes = encode((blocks + 1).view(np.uint8))
        yield codes if kind == "I2_S" else np.hstack([codes, _block_scales(blocks, scale)])
    if kind == "I2_S":
        tail = np.zeros(SCALE_BYTES, np.uint8)
        tail[:4] = np.array([scale], "<f4").view(np.uint8)
        yield tail


def _block_scales(blocks: Trits, scale: np.float32) -> Bytes:
    """fp16 of each block (blocks, 2); 0 of a block of zeros, since it is their largest value."""
    used = blocks.any(axis=1, keepdims=True)
    return np.where(used, scale, np.float32(0)).astype("<f2").view(np.uint8)


def _tq1_0(codes: Bytes) -> Bytes:
    """(blocks, 256) of 0, 1, 2 to (blocks, 52): 32 and 16 bytes of five trits, 4 of four."""
    parts = []
    for first, width, count in ((0, 32, 5), (160, 16, 5), (240, 4, 4)):
        trits = codes[:, first : first + width * count].reshape(-1, count, width)
        powers = 3 ** np.arange(4, 4 - count, -1, dtype=np.uint16)
        values = (trits * powers[:, None]).sum(axis=1, dtype=np.uint16)
        parts.append(((values * np.uint32(256) + 242) // 243).astype(np.uint8))
    return np.hstack(parts)


def _tq2_0(codes: Bytes) -> Bytes:
    """(blocks, 256) to (blocks, 64): in each half, the place in a byte counts up every 32."""
    return _two_bits(codes.reshape(-1, 2, 4, 32), (0, 2, 4, 6)).reshape(-1, 64)


def _i2_s(codes: Bytes) -> Bytes:
    """(blocks, 128) to (blocks, 32): the place in a byte counts down every 32."""
    return _two_bits(codes.reshape(-1, 4, 32), (6, 4, 2, 0))


def _two_bits(codes: Bytes, shifts: tuple[int, ...]) -> Bytes:
    """Join codes (..., 4, 32) to bytes (..., 32)."""
    shifted = codes << np.array(shifts, np.uint8)[:, None]
    joined: Bytes = np.bitwise_or.reduce(shifted, axis=-2)
    return joined


_ENCODERS: dict[str, Callable[[Bytes], Bytes]] = {"TQ1_0": _tq1_0, "TQ2_0": _tq2_0, "I2_S": _i2_s}
