"""Ternary blocks with a scale each, or one before each row of them, decoded many at once.

A decoder takes whole blocks and fills in their weights; a code that encodes nothing becomes
``IMPOSSIBLE``.
Source: ggml-org/ggml, src/ggml-quants.c; of IQ1_BN and IQ2_BN ikawrakow/ik_llama.cpp,
ggml/src/iqk/iqk_quantize.cpp: dequantize_row_*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Trits = NDArray[np.int8]

IMPOSSIBLE = 2  # what stands for a code that is no weight

# Five trits v = 81·u0 + 27·u1 + ... + u4 are stored as ceil(v · 256 / 243): 13 bytes are left over.
_STORED = [-(-v * 256 // 243) for v in range(243)]
_NOT_BASE3 = np.ones(256, np.bool_)
_NOT_BASE3[_STORED] = False
# A byte -> its five weights, the last trit first; of five bytes, which numpy.take copies fastest.
_TRITS = np.full((256, 5), IMPOSSIBLE, np.int8)
_TRITS[_STORED] = np.arange(243)[:, None] // 3 ** np.arange(5) % 3 - 1
_FIVES = _TRITS.view("V5")[:, 0]


def decode_tq1_0(blocks: Bytes, trits: Trits) -> None:
    """54 bytes: 32 and 16 of five trits, 4 of four trits. ``trits`` is ``(blocks, 256)``."""
    for first, begin, end, count in ((0, 0, 32, 5), (160, 32, 48, 5), (240, 48, 52, 4)):
        codes = blocks[:, begin:end]
        wrong = _NOT_BASE3[codes]
        any_wrong = wrong.any()
        width = end - begin
        for n in range(count):
            at = first + n * width
            part = trits[:, at : at + width]
            shifted = codes * np.uint8(3**n)  # wraps: the fraction after n trits
            # Its next trit is (shifted * 3) >> 8.
            np.add((shifted >= 86).view(np.int8), (shifted >= 171).view(np.int8), out=part)
            part -= 1
            if any_wrong:
                part[wrong] = IMPOSSIBLE


def decode_tq2_0(blocks: Bytes, trits: Trits) -> None:
    """66 bytes: two halves of 32 bytes, the code's place in a byte counts up every 32 weights."""
    halves = trits.reshape(-1, 2, 4, 32)
    codes = blocks[:, :64].reshape(-1, 2, 32)
    for place in range(4):
        two_bits(codes, 2 * place, halves[:, :, place])


def decode_q2_0(blocks: Bytes, trits: Trits) -> None:
    """18 or 34 bytes: four neighbours a byte, the first in the lowest bits."""
    for place in range(4):
        two_bits(blocks[:, 2:], 2 * place, trits[:, place::4])


def decode_q1_0(blocks: Bytes, trits: Trits) -> None:
    """18 bytes: a bit a weight, 1 is plus, the first in the lowest bit."""
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
    np.subtract(bits * np.int8(2), 1, out=trits, casting="unsafe")


def decode_iq1_bn(blocks: Bytes, trits: Trits) -> None:
    """13 bytes: for each 16 weights three bytes of five, the last ones in a byte for all four.

    The first weight is the last trit of its byte.
    """
    rows = trits.reshape(-1, 4, 16)
    fives = np.take(_FIVES, blocks).view(np.int8).reshape(-1, 65)
    rows[:, :, :15] = fives[:, :60].reshape(-1, 4, 15)
    rows[:, :, 15] = fives[:, 60:64]


def decode_iq2_bn(blocks: Bytes, trits: Trits) -> None:
    """16 bytes: the code's place in a byte counts up every 16 weights."""
    quarters = trits.reshape(-1, 4, 16)
    for place in range(4):
        two_bits(blocks, 2 * place, quarters[:, place])


def two_bits(codes: Bytes, shift: int, trits: Trits) -> None:
    """Fill ``trits`` with the weights whose codes (weight + 1) lie ``shift`` bits up."""
    np.subtract((codes >> shift) & 3, 1, out=trits, casting="unsafe", dtype=np.int8)


def half(blocks: Bytes, at: int) -> NDArray[np.float32]:
    """The fp16 at byte ``at`` of each block as float32 ``(blocks,)``."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")[:, 0].astype(np.float32)


class TernaryBlocks(NamedTuple):
    """How a type's bytes become weights.

    Attributes:
        decode: Fills in the weights of whole blocks.
        scale_at: Byte of a block at which its scale lies; None: it lies before each row's blocks.
        scale_dtype: ``F16`` or ``F32``.
    """

    decode: Callable[[Bytes, Trits], None]
    scale_at: int | None
    scale_dtype: str = "F16"

    def scales(self, rows: Bytes, row_bytes: int, block_bytes: int) -> NDArray[np.float32]:
        """The scales of whole rows (N, bytes), ``row_bytes`` of them before the blocks."""
        if self.scale_at is not None:
            return half(rows.reshape(-1, block_bytes), self.scale_at).reshape(len(rows), -1)
        dtype = {"F16": "<f2", "F32": "<f4"}[self.scale_dtype]
        return np.ascontiguousarray(rows[:, :row_bytes]).view(dtype).astype(np.float32)


BINARY = "Q1_0"  # the type that has no code for 0
TERNARY_BLOCKS = {
    "TQ1_0": TernaryBlocks(decode_tq1_0, 52),
    "TQ2_0": TernaryBlocks(decode_tq2_0, 64),
    BINARY: TernaryBlocks(decode_q1_0, 0),
    "Q2_0_64": TernaryBlocks(decode_q2_0, 0),
    "Q2_0_128": TernaryBlocks(decode_q2_0, 0),
    "IQ1_BN": TernaryBlocks(decode_iq1_bn, None),
    "IQ2_BN": TernaryBlocks(decode_iq2_bn, None, "F32"),
}
