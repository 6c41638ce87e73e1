"""Ternary blocks with a scale each: TQ1_0, TQ2_0, Q1_0 and Q2_0, decoded many at once.

A decoder takes whole blocks and fills in their weights; a code that encodes nothing becomes
``IMPOSSIBLE``.
Source: ggml-org/ggml, src/ggml-quants.c, dequantize_row_*.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Trits = NDArray[np.int8]

IMPOSSIBLE = 2  # what stands for a code that is no weight

# Five trits v = 81·u0 + 27·u1 + ... + u4 are stored as ceil(v · 256 / 243): 13 bytes are left over.
_NOT_BASE3 = np.ones(256, np.bool_)
_NOT_BASE3[[-(-v * 256 // 243) for v in range(243)]] = False


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


def two_bits(codes: Bytes, shift: int, trits: Trits) -> None:
    """Fill ``trits`` with the weights whose codes (weight + 1) lie ``shift`` bits up."""
    np.subtract((codes >> shift) & 3, 1, out=trits, casting="unsafe", dtype=np.int8)


def half(blocks: Bytes, at: int) -> NDArray[np.float32]:
    """The fp16 at byte ``at`` of each block as float32 ``(blocks,)``."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")[:, 0].astype(np.float32)


BINARY = "Q1_0"  # the type that has no code for 0
# Type name -> decoder, and at which byte of a block its fp16 scale lies.
TERNARY_BLOCKS: dict[str, tuple[Callable[[Bytes, Trits], None], int]] = {
    "TQ1_0": (decode_tq1_0, 52),
    "TQ2_0": (decode_tq2_0, 64),
    BINARY: (decode_q1_0, 0),
    "Q2_0_64": (decode_q2_0, 0),
    "Q2_0_128": (decode_q2_0, 0),
}
