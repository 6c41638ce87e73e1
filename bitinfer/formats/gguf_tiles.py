"""bitnet.cpp's layouts with one fp32 scale a tensor: I2_S, TL1 and TL2.

The file tells neither the byte order of I2_S nor the tiles of TL1 and TL2, so the caller does.
Sources: microsoft/BitNet, src/ggml-bitnet-mad.cpp, utils/convert-hf-to-gguf-bitnet.py,
utils/codegen_tl1.py, utils/codegen_tl2.py, preset_kernels/*/kernel_config_tl*.ini.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitinfer.formats.gguf_blocks import IMPOSSIBLE, Bytes, Trits, two_bits
from bitinfer.formats.gguf_types import tl2_code_bytes

# Byte orders of I2_S: x86 builds, all Python converters and the official file; Arm builds since
# 2025-11; x86 builds without ACT_PARALLEL.
I2S_LAYOUTS = ("128-block", "64-block", "4-row")
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Tiling:
    """How TL1 or TL2 cut a matrix: tiles of ``BM`` rows and ``BK`` columns, ``bm`` rows a step."""

    BM: int
    BK: int
    bm: int


# (N, K) -> tiles, as published for 1bitLLM's large and 3B and for Llama3-8B.
_TL1_TILINGS = {
    (1536, 4096): Tiling(256, 128, 32),
    (1536, 1536): Tiling(128, 64, 64),
    (4096, 1536): Tiling(256, 128, 32),
    (3200, 8640): Tiling(160, 64, 32),
    (3200, 3200): Tiling(320, 128, 64),
    (8640, 3200): Tiling(320, 64, 32),
    (14336, 4096): Tiling(256, 128, 64),
    (4096, 14336): Tiling(256, 128, 32),
    (1024, 4096): Tiling(128, 64, 64),
    (4096, 4096): Tiling(128, 64, 32),
}
_TL2_TILINGS = {
    (1536, 4096): Tiling(256, 96, 32),
    (1536, 1536): Tiling(128, 192, 32),
    (4096, 1536): Tiling(256, 96, 32),
    (3200, 8640): Tiling(160, 96, 32),
    (3200, 3200): Tiling(320, 96, 32),
    (8640, 3200): Tiling(320, 96, 32),
    (14336, 4096): Tiling(256, 96, 32),
    (4096, 14336): Tiling(128, 96, 32),
    (1024, 4096): Tiling(256, 96, 32),
    (4096, 4096): Tiling(128, 96, 32),
}


def _pair_table() -> NDArray[np.int8]:
    """A byte -> the four weights of its two pairs, high nibble first: code 3·w0 + w1 + 4."""
    pairs = np.full((16, 2), IMPOSSIBLE, np.int8)
    pairs[:9] = [(w0, w1) for w0 in (-1, 0, 1) for w1 in (-1, 0, 1)]
    return np.concatenate([pairs.repeat(16, axis=0), np.tile(pairs, (16, 1))], axis=1)


def _triple_table() -> NDArray[np.int8]:
    """16·sign + magnitude -> three weights: 9·w0 + 3·w1 + w2 = ±magnitude; no negative zero."""
    triples = np.full((32, 3), IMPOSSIBLE, np.int8)
    for w in np.ndindex(3, 3, 3):
        value = 9 * w[0] + 3 * w[1] + w[2] - 13
        triples[abs(value) + 16 * (value < 0)] = np.array(w) - 1
    return triples


_PAIRS = _pair_table()
_TRIPLES = _triple_table()
# Lane of a tile's 32 rows -> its byte: TL2 swaps the second and third eight.
_TL2_LANES = np.arange(32).reshape(4, 8)[[0, 2, 1, 3]].ravel()


def published_tiling(kind: str, n: int, k: int) -> Tiling:
    """The tiles that bitnet.cpp publishes for an (N, K) matrix of ``TL1`` or ``TL2``.

    Raises:
        ValueError: none are published.
    """
    published = _TL1_TILINGS if kind == "TL1" else _TL2_TILINGS
    if (n, k) not in published:
        raise ValueError(
            f"expected a shape whose {kind} tiles are published, got ({n}, {k}): give BM, BK and bm"
        )
    return published[n, k]


def decode_i2_s(codes: Bytes, layout: str, trits: Trits) -> None:
    """Fill ``trits`` (N, K) from N·K/4 bytes in a byte order of ``I2S_LAYOUTS``.

    A block of 4·q weights takes q bytes; weight q·g + p of it is pair of bits 3 − g of byte p.
    q is 32, 16, or K; blocks run over the whole matrix.

    Raises:
        ValueError: the matrix is no whole number of blocks.
    """
    quarter = {"128-block": 32, "64-block": 16, "4-row": trits.shape[1]}[layout]
    if len(codes) % quarter:
        raise ValueError(f"expected N·K to be a multiple of {4 * quarter} for {layout} I2_S")
    rows = codes.reshape(-1, quarter)
    blocks = trits.reshape(-1, 4, quarter)
    step = max(1, _CHUNK_BYTES // quarter)
    for begin in range(0, len(rows), step):
        for group in range(4):
            two_bits(rows[begin : begin + step], 6 - 2 * group, blocks[begin : begin + step, group])


def decode_tl1(codes: Bytes, tiling: Tiling, trits: Trits) -> None:
    """Fill ``trits`` (N, K) from N·K/4 bytes.

    Raises:
        ValueError: the tiles do not fit the matrix.
    """
    n, k = trits.shape
    by = 256 // tiling.bm if tiling.bm in (32, 64) else 0
    if not by or n % tiling.BM or tiling.BM % tiling.bm or k % tiling.BK or tiling.BK % by:
        raise ValueError(f"expected tiles that fit ({n}, {k}), bm 32 or 64, got {tiling}")
    tiles = codes.reshape(
        n // tiling.BM, k // tiling.BK, tiling.BM // tiling.bm, tiling.BK // by, -1, by // 4, 16
    )
    for tile, rows in zip(tiles, trits.reshape(-1, tiling.BM, k), strict=True):
        weights = _PAIRS[tile]  # (K tile, step, g, lane / 16, h, lane % 16, weight)
        rows[:] = weights.transpose(1, 3, 5, 0, 2, 4, 6).reshape(tiling.BM, k)


def decode_tl2(codes: Bytes, tiling: Tiling, trits: Trits) -> None:
    """Fill ``trits`` (N, K) from three planes: magnitudes and signs of triples, then pairs.

    Raises:
        ValueError: the tiles do not fit the matrix.
    """
    n, k = trits.shape
    k2 = k % tiling.BK
    k3 = k - k2
    ends = np.cumsum([n * k3 // 6, n * k3 // 24, n * k2 // 4])
    fits = tiling.bm == 32 and not (n % tiling.BM or tiling.BM % 32 or tiling.BK % 24 or k2 % 32)
    if not fits or ends[2] > (tl2_code_bytes(n, k) or 0):
        raise ValueError(f"expected tiles that fit ({n}, {k}), bm 32, got {tiling}")
    steps, tiles = tiling.BM // 32, n // tiling.BM
    magnitudes = codes[: ends[0]].reshape(tiles, k3 // tiling.BK, steps, tiling.BK // 6, 32)
    signs = codes[ends[0] : ends[1]].reshape(tiles, k3 // tiling.BK, steps, tiling.BK // 24, 16, 2)
    pairs = codes[ends[1] : ends[2]].reshape(tiles, k2 // 32, steps, 8, 32)
    for tile, rows in enumerate(trits.reshape(tiles, tiling.BM, k)):
        rows[:, :k3] = _triples(magnitudes[tile], signs[tile]).reshape(tiling.BM, k3)
        weights = _PAIRS[pairs[tile][..., _TL2_LANES]]  # (K tile, step, byte, lane, weight)
        rows[:, k3:] = weights.transpose(1, 3, 0, 2, 4).reshape(tiling.BM, k2)


def _triples(magnitudes: Bytes, signs: Bytes) -> NDArray[np.int8]:
    """Weights (step, lane, K tile, triple, 3) of one row of tiles.

    ``magnitudes``: (K tile, step, triple / 2, byte of a lane), the first triple in the high nibble;
    ``signs``: (K tile, step, triple / 8, lane % 16, 2), 16 bits little-endian, of which bit
    15 − (2·(triple % 8) + lane / 16) is the sign.
    """
    k_tiles, steps, halves, _ = magnitudes.shape
    lanes = magnitudes[..., _TL2_LANES]
    nibbles = np.stack([lanes >> 4, lanes & 15], axis=3)  # (K tile, step, triple / 2, 2, lane)
    nibbles = nibbles.reshape(k_tiles, steps, 2 * halves, 32)
    bits = np.unpackbits(signs[..., ::-1], axis=-1).reshape(*signs.shape[:4], 8, 2)
    bits = bits.transpose(0, 1, 2, 4, 5, 3).reshape(k_tiles, steps, 2 * halves, 32)
    weights: NDArray[np.int8] = _TRIPLES[nibbles | bits << 4].transpose(1, 3, 0, 2, 4)
    return weights
