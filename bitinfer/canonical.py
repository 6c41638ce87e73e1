"""The canonical tensors of a raw checkpoint, each made from the mapped file when it is asked for.

At most about one tensor is in memory at a time: ``convert`` streams them into a folder, ``loading``
takes them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core
from bitinfer.errors import CheckpointError
from bitinfer.families.binary import binarize
from bitinfer.families.bitlinear import effective_scale
from bitinfer.families.gguf_source import GgufSource
from bitinfer.families.plan import ModelPlan, TernaryWeight
from bitinfer.families.spec import HEAD, HEAD_SCALE, scale_group, scale_shape
from bitinfer.formats.safetensors import DTYPE_BYTES, as_float32
from bitinfer.formats.scaled import group_scales, one_scale
from bitinfer.formats.source import TensorSource

CHUNK_BYTES = 16 << 20  # of a stored tensor that is read and turned at a time


class CanonicalWeights:
    """The canonical tensors of a raw checkpoint, made one at a time.

    Attributes:
        source: The mapped checkpoint.
        plan: What becomes of each stored tensor.
        packing: Layout of the ternary matrices.
        tensors: Name to (safetensors dtype, shape) of every canonical tensor; a matrix comes before
            its scale.
    """

    def __init__(self, source: TensorSource, plan: ModelPlan, packing: str, head: str) -> None:
        self.plan = plan
        self.packing = packing
        self.source = source
        self.ternary = {weight.name: weight for weight in plan.ternary}
        self._scales: dict[str, NDArray[Any]] = {}
        self.tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        for w in plan.ternary:
            group = scale_group(plan.spec, w.k)
            self.tensors[w.name] = ("U8", (_core.packed_bytes(packing, w.n, w.k, group=group),))
            self.tensors[f"{w.name}_scale"] = (w.scale_dtype, scale_shape(plan.spec, w.n, w.k))
        for name, stored in plan.floats.items():
            dtype = "F32" if name in plan.offset else source.tensors[stored].dtype
            self.tensors[name] = (dtype, source.tensors[stored].shape)
        vocab, hidden = plan.spec["vocab_size"], plan.spec["hidden_size"]
        if head == "int8":
            self.tensors[HEAD] = ("I8", (vocab, -(-hidden // 64) * 64))
            self.tensors[HEAD_SCALE] = ("F32", (vocab,))
        elif not plan.spec["tie_word_embeddings"]:
            self.tensors[HEAD] = (source.tensors[plan.head].dtype, (vocab, hidden))

    @property
    def groups(self) -> dict[str, int]:
        """Name to columns of a group, of each matrix with a scale for each row and group."""
        columns = {w.name: scale_group(self.plan.spec, w.k) for w in self.plan.ternary}
        return {name: group for name, group in columns.items() if group is not None}

    @property
    def total_bytes(self) -> int:
        """Bytes of all canonical tensors."""
        return sum(DTYPE_BYTES[dtype] * math.prod(shape) for dtype, shape in self.tensors.values())

    def chunks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the bytes of a canonical tensor in order, as C-contiguous arrays.

        A ternary matrix, and an int8 head, must be asked for before its scale, and each once.

        Raises:
            CheckpointError: an impossible code, a value that is no number, or a refused scale.
        """
        if name in self.ternary:
            yield self._pack(self.ternary[name])
        elif name == HEAD and self.tensors[HEAD][0] == "I8":
            yield from self._quantize_head()
        elif name.endswith(".weight_scale"):
            yield self._scales.pop(name)
        else:
            view = self.view(name)
            for at in range(0, len(view), CHUNK_BYTES):
                yield view[at : at + CHUNK_BYTES]

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a canonical float tensor: the stored ones, or those of fp32 gain + 1."""
        stored = self.plan.head if name == HEAD else self.plan.floats[name]
        view, tensor = self.source.view(stored), self.source.tensors[stored]
        if len(tensor.shape) > 1:
            return view
        values = as_float32(view, tensor.dtype)
        with self._naming(stored):
            if not np.isfinite(values).all():
                at = int(np.argmin(np.isfinite(values)))
                raise ValueError(f"expected finite numbers, got {values[at]} at {at}")
        return (values + np.float32(1)).view(np.uint8) if name in self.plan.offset else view

    def _pack(self, weight: TernaryWeight) -> NDArray[np.uint8]:
        own = {
            "trits": self._pack_trits,
            "scaled": self._pack_scaled,
            "binary": self._pack_binary,
        }
        if weight.form in own:
            return own[weight.form](weight)
        view = self.source.view(weight.stored)
        dtype = self.source.tensors[weight.stored].dtype.lower()
        scale = self._stored_scale(weight)
        with self._naming(weight.stored):
            if weight.form == "master":
                packed, absmean = _core.pack_absmean(view, dtype, weight.n, weight.k, self.packing)
                scale = np.float32(absmean)
            elif weight.form == "packed":
                packed = _core.pack_hf(view.reshape(-1, weight.k), weight.n, self.packing)
            else:
                return self._pack_codes(weight, self._unpacked_codes(weight), np.array([scale]))
        self._scales[f"{weight.name}_scale"] = np.array([scale], np.float32)
        return packed

    def _pack_trits(self, weight: TernaryWeight) -> NDArray[np.uint8]:
        assert isinstance(self.source, GgufSource)
        matrix = self.source.trits(weight.stored)
        shape = scale_shape(self.plan.spec, weight.n, weight.k)
        if shape == (1,):
            where = f"{weight.stored} in {self.source.path}: scale"
            scales = np.array([effective_scale(matrix.scales[0], self.plan.dialect, where)])
        else:
            dtype = {"F16": np.float16, "F32": np.float32}[weight.scale_dtype]
            scales = np.broadcast_to(matrix.scales.T, shape).astype(dtype)
        return self._pack_codes(weight, matrix.trits, scales)

    def _pack_scaled(self, weight: TernaryWeight) -> NDArray[np.uint8]:
        view, dtype = self.source.view(weight.stored), self.source.tensors[weight.stored].dtype
        group = scale_group(self.plan.spec, weight.k)
        scales: NDArray[Any] | None
        if group is not None:
            scales = group_scales(view, dtype, weight.n, weight.k, group)
        else:
            one = one_scale(view, dtype, weight.n, weight.k)
            scales = None if one is None else np.array([one or 1], np.float32)  # 1 of all zeros
        assert scales is not None, "the plan has found them"
        codes = _core.signs(view, dtype.lower(), weight.n, weight.k)
        return self._pack_codes(weight, codes, scales)

    def _pack_binary(self, weight: TernaryWeight) -> NDArray[np.uint8]:
        groups = self.plan.dialect.binary_groups
        assert groups is not None, "the plan has found them"
        dtype = self.source.tensors[weight.stored].dtype
        masters = as_float32(self.source.view(weight.stored), dtype).reshape(weight.n, weight.k)
        with self._naming(weight.stored):
            codes, scales = binarize(masters, groups)
        if groups > 1:
            scales = np.repeat(scales[:, None], weight.n, axis=1)
        return self._pack_codes(weight, codes, scales)

    def _pack_codes(
        self, weight: TernaryWeight, codes: NDArray[np.int8], scales: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """Pack weights (N, K); keep their scales, of ``scale_shape`` and ``weight.scale_dtype``."""
        self._scales[f"{weight.name}_scale"] = scales
        return _core.pack(codes, self.packing, group=scale_group(self.plan.spec, weight.k))

    def _stored_scale(self, weight: TernaryWeight) -> np.float32:
        if weight.scale is None:
            return np.float32(0)  # a master's comes from its absmean
        view, dtype = self.source.view(weight.scale), self.source.tensors[weight.scale].dtype
        where = f"{weight.scale} in {self.source.path_of(weight.scale)}"
        return effective_scale(as_float32(view, dtype)[0], self.plan.dialect, where)

    def _unpacked_codes(self, weight: TernaryWeight) -> NDArray[np.int8]:
        """Floats in {-1, 0, 1}, shape (N, K), as int8; refuses any other value."""
        dtype = self.source.tensors[weight.stored].dtype
        codes = np.empty((weight.n, weight.k), np.int8)
        for row, rows in self._row_chunks(weight.stored):
            values = as_float32(rows, dtype).reshape(-1, weight.k)
            bad = ~((values == 0) | (np.abs(values) == 1))
            if bad.any():
                at, column = np.argwhere(bad)[0]
                raise ValueError(
                    f"row {row + at}, column {column}: expected -1, 0 or 1 of ternary values stored"
                    f" as floats, got {values[at, column]}"
                )
            codes[row : row + len(values)] = values
        return codes

    def _quantize_head(self) -> Iterator[NDArray[np.int8]]:
        dtype = self.source.tensors[self.plan.head].dtype.lower()
        columns = self.source.tensors[self.plan.head].shape[1]
        scales = []
        for row, view in self._row_chunks(self.plan.head):
            rows = len(view) // self._row_bytes(self.plan.head)
            with self._naming(self.plan.head, f" from row {row}"):
                codes, scale = _core.quantize_rows_i8(view, dtype, rows, columns)
            scales.append(scale)
            yield codes
        self._scales[HEAD_SCALE] = np.concatenate(scales)

    def _row_chunks(self, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (first row, bytes of whole rows), about ``CHUNK_BYTES`` each."""
        view, row_bytes = self.source.view(name), self._row_bytes(name)
        step = max(1, CHUNK_BYTES // row_bytes)
        for row in range(0, self.source.tensors[name].shape[0], step):
            yield row, view[row * row_bytes : (row + step) * row_bytes]

    def _row_bytes(self, name: str) -> int:
        stored = self.source.tensors[name]
        return int(DTYPE_BYTES[stored.dtype] * math.prod(stored.shape[1:]))

    @contextmanager
    def _naming(self, name: str, part: str = "") -> Iterator[None]:
        """Turn the core's ValueError about a matrix into a CheckpointError that names it."""
        try:
            yield
        except ValueError as cause:
            path = self.source.path_of(name)
            ternary = str(cause).startswith("b1:")  # weights that b1 cannot hold
            mend = "take another packing" if ternary else "the file is damaged, download it again"
            raise CheckpointError(f"{name}{part}: {cause} in {path}: {mend}") from None
