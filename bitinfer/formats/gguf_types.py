"""GGUF's tensor types: their names and sizes, and which one a number means.

Forks gave the same numbers to other types: 39 is MXFP4 or TL2, 42 is Q2_0 in groups of 64 or 128.
The bytes that the tensors take tell them apart, or the file is refused. Sources: ggml-org/ggml,
include/ggml.h and src/ggml-common.h; bitnet.cpp's fork of it, ggml/src/ggml.c;
ikawrakow/ik_llama.cpp, ggml/src/ggml-common.h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class GgmlType:
    """A tensor type: ``block_bytes`` for each ``block`` weights along K, and what comes on top.

    Attributes:
        name: Its name in ggml; Q2_0 with its group.
        block: Weights of a block; K is a multiple of it.
        block_bytes: Bytes of a block.
        row_bytes: Bytes before each row's blocks.
        tail_bytes: Bytes after the last block.
    """

    name: str
    block: int
    block_bytes: int
    row_bytes: int = 0
    tail_bytes: int = 0

    def size(self, shape: tuple[int, ...]) -> int | None:
        """Bytes of a tensor of this type and ``shape`` (K last); None where it cannot have it."""
        k = shape[-1]
        if self is TL2:
            return _tl2_bytes(math.prod(shape[:-1]), k)
        if k % self.block:
            return None
        row = self.row_bytes + k // self.block * self.block_bytes
        return math.prod(shape[:-1]) * row + self.tail_bytes


TL2 = GgmlType("TL2", 3, 0)  # its size follows no block; see _tl2_bytes
SCALE_BYTES = 32  # after the codes of I2_S, TL1 and TL2: an fp32 scale, then bytes without meaning


def _tl2_bytes(n: int, k: int) -> int | None:
    codes = tl2_code_bytes(n, k)
    return None if codes is None else codes + SCALE_BYTES


def tl2_code_bytes(n: int, k: int) -> int | None:
    """Where the scale of a TL2 matrix lies: triples, and always room for 256 columns of pairs."""
    if k < 256 or k % 32:
        return None
    return -(-((k - 256) * n // 3 * 5 // 8 + 256 * n // 2 * 4 // 8) // 32) * 32


_UPSTREAM = (  # number, name, weights and bytes of a block
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
)
_Q2_0_64 = GgmlType("Q2_0_64", 64, 18)
_Q2_0_128 = GgmlType("Q2_0_128", 128, 34)

# What a type's number may mean.
TYPES: dict[int, tuple[GgmlType, ...]] = {
    **{number: (GgmlType(name, weights, size),) for number, name, weights, size in _UPSTREAM},
    36: (GgmlType("I2_S", 4, 1, tail_bytes=SCALE_BYTES),),  # no type upstream, nor is 38
    38: (GgmlType("TL1", 4, 1, tail_bytes=SCALE_BYTES),),
    39: (GgmlType("MXFP4", 32, 17), TL2),
    42: (_Q2_0_64, _Q2_0_128),
    48: (_Q2_0_64,),
    142: (_Q2_0_128,),
    134: (GgmlType("IQ1_BN", 64, 13, row_bytes=2),),
    135: (GgmlType("IQ2_BN", 64, 16, row_bytes=4),),
    335: (GgmlType("IQ2_BN_R4", 64, 16, row_bytes=4),),
}
