"""Stored tensors as numbers: packed weights (csrc/pack/format.h draws the bytes), floats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitinfer.reference.arrays import F32, I8, Tensor

_TILES = {  # rows, block columns, bytes
    "i2": (1, 256, 64),
    "t3": (32, 24, 160),
    "t5": (64, 5, 64),
    "b1": (64, 8, 64),
}


def unpack(packed: NDArray[np.uint8], packing: str, n: int, k: int, group: int | None = None) -> I8:
    """Ternary weights (N, K) of a packed matrix, a fresh int8 array.

    With groups of columns (csrc/pack/grouped.h) it is a stack of matrices: one for each group, or
    for as many as fit into a block.
    """
    tile_rows, block_k, block_bytes = _TILES[packing]
    part = k if group is None else max(block_k // group, 1) * group
    parts = []
    for first in range(0, k, part):
        columns = min(part, k - first)
        size = -(-n // tile_rows) * -(-columns // block_k) * block_bytes
        parts.append(_unpack_part(packed, packing, n, columns))
        packed = packed[-(-size // 64) * 64 :]
    return np.concatenate(parts, axis=1)


def _unpack_part(packed: NDArray[np.uint8], packing: str, n: int, k: int) -> I8:
    tile_rows, block_k, block_bytes = _TILES[packing]
    tiles, blocks = -(-n // tile_rows), -(-k // block_k)
    b = packed[: tiles * blocks * block_bytes].reshape(tiles, blocks, block_bytes).astype(np.int64)
    if packing == "i2":
        codes = np.stack([(b >> 2 * g) & 3 for g in range(4)], axis=2)  # (N, blocks, 4, 64)
        w = codes.reshape(tiles, blocks * 256) - 1
    elif packing == "t3":
        pairs = b[:, :, :128].reshape(tiles, blocks, 4, 32)
        magnitude = np.stack([pairs & 15, pairs >> 4], axis=3).reshape(tiles, blocks, 8, 32)
        negative = np.stack([(b[:, :, 128:] >> (7 - j)) & 1 for j in range(8)], axis=2)
        w = _trits(np.where(negative == 1, -magnitude, magnitude), 3)
    elif packing == "b1":
        bits = np.stack([(b >> i) & 1 for i in range(8)], axis=3)  # (tiles, blocks, rows, 8)
        w = 2 * bits.transpose(0, 2, 1, 3).reshape(tiles * tile_rows, blocks * 8) - 1
    else:
        w = _trits(np.where(b & 128, -(b & 127), b & 127)[:, :, None, :], 5)
    return w.reshape(-1, w.shape[-1])[:n, :k].astype(np.int8)


def _trits(v: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Balanced base-3 digits of v (tiles, blocks, groups, rows), as (tiles, rows, columns)."""
    digits = []
    for _ in range(count):
        digit = (v + 1) % 3 - 1
        digits.append(digit)
        v = (v - digit) // 3
    w = np.stack(digits[::-1], axis=3)  # (tiles, blocks, groups, count, rows)
    return np.moveaxis(w, -1, 1).reshape(w.shape[0], w.shape[-1], -1)


def to_f32(tensor: Tensor) -> F32:
    """A float tensor as float32; exact."""
    raw, dtype, shape = tensor
    if dtype == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view({"f32": np.float32, "f16": np.float16}[dtype]).astype(np.float32).reshape(shape)
