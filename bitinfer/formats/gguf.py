"""GGUF: our own strict reader over a file mapping, for ternary and float tensors.

``gguf_header`` parses the header and ``gguf_layout`` places the tensors; here their bytes become
trits or floats, some rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.formats.file_mapping import map_file
from bitinfer.formats.gguf_blocks import IMPOSSIBLE, TERNARY_BLOCKS
from bitinfer.formats.gguf_floats import FLOAT_BLOCKS
from bitinfer.formats.gguf_header import Header, Value
from bitinfer.formats.gguf_layout import GgufTensor, place_tensors
from bitinfer.formats.gguf_tiles import (
    I2S_LAYOUTS,
    Tiling,
    decode_i2_s,
    decode_tl1,
    decode_tl2,
    published_tiling,
)
from bitinfer.formats.gguf_types import SCALE_BYTES, TL2
from bitinfer.json_file import shown

_ONE_SCALE = ("I2_S", "TL1", "TL2")
TERNARY_TYPES = (*_ONE_SCALE, *TERNARY_BLOCKS)
_CHUNK_WEIGHTS = 1 << 20  # decoded at once; bounds the memory for intermediate values


@dataclass(frozen=True)
class TernaryMatrix:
    """A decoded matrix; its values are ``trits`` times the scale of their group.

    Attributes:
        trits: int8 (N, K) in {-1, 0, 1}; 0 where the scale of a group is.
        scales: float32, (1,) where one scale serves all, else (N, K / group).
        group: Weights along K that share a scale; None for one scale.
    """

    trits: NDArray[np.int8]
    scales: NDArray[np.float32]
    group: int | None


class GgufFile:
    """A mapped GGUF file whose header has been checked.

    Attributes:
        path: The file.
        metadata: Key to value: numbers, strings, arrays (numpy views, or sequences of strings).
        tensors: Name to tensor, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Map ``path`` read-only and check its header.

        Raises:
            CheckpointError: the file is missing, unreadable, empty, truncated, not GGUF, of another
                version or byte order, breaks a rule of the format, or holds a type that is not
                known or cannot be told from another.
        """
        self.path = path
        self._bytes = map_file(path, "GGUF", CheckpointError)
        header = Header(path, self._bytes)
        self.metadata: Mapping[str, Value] = header.metadata
        self.tensors: Mapping[str, GgufTensor] = place_tensors(header, len(self._bytes), path)

    def content(self) -> NDArray[np.uint8]:
        """All bytes of the file: read-only, no copy."""
        return self._bytes

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor: read-only uint8 ``(size,)``, no copy; it keeps the file mapped."""
        tensor = self.tensors[name]
        return self._bytes[tensor.begin : tensor.end]

    def floats(self, name: str, begin: int = 0, end: int | None = None) -> NDArray[np.float32]:
        """Values of rows ``begin`` to ``end`` of a float tensor, a fresh float32 array.

        A vector is one row; of more than two dimensions all but the last count as rows.

        Returns:
            The tensor in its own shape, or ``(end - begin, K)`` where rows are chosen.

        Raises:
            CheckpointError: the tensor is not of a float type.
        """
        tensor = self.tensors[name]
        decode = FLOAT_BLOCKS.get(tensor.type.name)
        if decode is None:
            raise self._refuse(name, f"expected a type of {', '.join(FLOAT_BLOCKS)}, got {tensor}")
        rows = self._rows(name)
        k = tensor.shape[-1]
        chosen = rows[begin:end]
        values = np.empty((len(chosen), k), np.float32)
        step = max(1, _CHUNK_WEIGHTS // k)
        for at in range(0, len(chosen), step):
            blocks = chosen[at : at + step].reshape(-1, tensor.type.block_bytes)
            with np.errstate(invalid="ignore", over="ignore"):  # scales may be no numbers
                values[at : at + step] = decode(blocks).reshape(-1, k)
        return values.reshape(tensor.shape) if len(chosen) == len(rows) else values

    def trits(self, name: str, layout: str | Tiling | None = None) -> TernaryMatrix:
        """A ternary matrix.

        Args:
            name: The tensor.
            layout: What the file does not tell: the byte order of I2_S (of ``I2S_LAYOUTS``), or
                the tiles of TL1 or TL2 where they are not the published ones. Else None.

        Raises:
            CheckpointError: the tensor is not ternary or no matrix, a code encodes no weight, a
                scale is not finite, or the layout does not fit the matrix.
            ValueError: ``layout`` is not of the kind that the tensor's type needs.
        """
        tensor = self.tensors[name]
        if tensor.type.name not in TERNARY_TYPES:
            types = ", ".join(TERNARY_TYPES)
            raise self._refuse(name, f"expected a ternary type of {types}, got {tensor}")
        if len(tensor.shape) != 2:
            raise self._refuse(name, f"expected a matrix, got {tensor}")
        if tensor.type.name in _ONE_SCALE:
            return self._one_scale(name, layout)
        if layout is not None:
            raise ValueError(f"{name}: layout: expected none for {tensor.type.name}, got {layout}")
        return self._several_scales(name)

    def _one_scale(self, name: str, layout: str | Tiling | None) -> TernaryMatrix:
        tensor = self.tensors[name]
        data = self.view(name)
        codes, tail = data[:-SCALE_BYTES], data[-SCALE_BYTES:]
        trits = np.empty(tensor.shape, np.int8)
        i2_s = tensor.type.name == "I2_S"
        if i2_s and layout not in I2S_LAYOUTS:
            choices = ", ".join(I2S_LAYOUTS)
            raise ValueError(f"{name}: layout: expected one of {choices}, got {layout}")
        if not (i2_s or layout is None or isinstance(layout, Tiling)):
            raise ValueError(f"{name}: layout: expected a Tiling for {tensor}, got {layout}")
        try:
            if isinstance(layout, str):
                decode_i2_s(codes, layout, trits)
            elif tensor.type is TL2:
                decode_tl2(codes, layout or published_tiling("TL2", *tensor.shape), trits)
            else:
                decode_tl1(codes, layout or published_tiling("TL1", *tensor.shape), trits)
        except ValueError as cause:
            raise self._refuse(name, str(cause)) from None
        self._check_trits(name, trits, 0)
        scales = tail[:4].view("<f4").astype(np.float32)
        self._check_scales(name, scales[None])
        return TernaryMatrix(trits, scales, None)

    def block_scales(self, name: str) -> NDArray[np.float32] | None:
        """The scale of each block or row of a ternary matrix, ``(N, groups)``; None: it has one.

        Raises:
            CheckpointError: one is not finite.
        """
        tensor = self.tensors[name]
        if tensor.type.name not in TERNARY_BLOCKS or len(tensor.shape) != 2:
            return None
        kind = tensor.type
        scales = TERNARY_BLOCKS[kind.name].scales(
            self._rows(name), kind.row_bytes, kind.block_bytes
        )
        self._check_scales(name, scales)
        return scales

    def _several_scales(self, name: str) -> TernaryMatrix:
        tensor = self.tensors[name]
        n, k = tensor.shape
        trits = np.empty((n, k), np.int8)
        scales = self.block_scales(name)
        assert scales is not None
        group = k // scales.shape[1]
        used = np.empty(scales.shape, np.bool_)  # groups with a weight that is not zero
        rows = self._rows(name)[:, tensor.type.row_bytes :]
        step = max(1, _CHUNK_WEIGHTS // k)
        for at in range(0, n, step):
            blocks = rows[at : at + step].reshape(-1, tensor.type.block_bytes)
            part = trits[at : at + step]
            TERNARY_BLOCKS[tensor.type.name].decode(blocks, part.reshape(-1, tensor.type.block))
            self._check_trits(name, part, at)
            part = part.reshape(-1, group)
            part[scales[at : at + step].ravel() == 0] = 0
            used[at : at + step] = part.any(axis=1).reshape(-1, k // group)
        found = scales[used]
        if not len(found) or (found == found[0]).all():
            return TernaryMatrix(trits, found[:1] if len(found) else np.ones(1, np.float32), None)
        return TernaryMatrix(trits, scales, group)

    def _check_trits(self, name: str, trits: NDArray[np.int8], first_row: int) -> None:
        if trits.max() == IMPOSSIBLE:
            row, column = divmod(int(trits.argmax()), trits.shape[1])
            where = f"row {first_row + row}, column {column}"
            raise self._damaged(
                name, f"{where}: expected a ternary weight, got a code that is none"
            )

    def _check_scales(self, name: str, scales: NDArray[np.float32]) -> None:
        """``scales``: (N, groups)."""
        wrong = np.argwhere(~np.isfinite(scales))
        if len(wrong):
            row, column = wrong[0]
            got = scales[row, column]
            raise self._damaged(
                name, f"scale of row {row}, group {column}: expected a finite number, got {got}"
            )

    def _rows(self, name: str) -> NDArray[np.uint8]:
        """The bytes as (rows, bytes of a row)."""
        tensor = self.tensors[name]
        return self.view(name).reshape(math.prod(tensor.shape[:-1]), -1)

    def _refuse(self, what: str, text: str) -> CheckpointError:
        return CheckpointError(f"{shown(what)}: {text} in {self.path}")

    def _damaged(self, what: str, text: str) -> CheckpointError:
        refused = self._refuse(what, text)
        return CheckpointError(f"{refused}: the file is damaged, download it again")
