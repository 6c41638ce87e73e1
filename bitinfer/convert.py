"""Raw checkpoints to canonical weights: streamed into a packed folder, or kept in memory.

``CanonicalWeights`` makes each tensor from the mapped checkpoint when it is asked for, so that at
most about one tensor is in memory at a time; ``convert`` writes them to a folder.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core, tuning
from bitinfer.errors import CheckpointError
from bitinfer.families import open_source, plan_model
from bitinfer.families.binary import binarize
from bitinfer.families.bitlinear import effective_scale
from bitinfer.families.gguf_source import GgufSource
from bitinfer.families.plan import ModelPlan, TernaryWeight
from bitinfer.families.spec import HEAD, HEAD_SCALE, in_groups, scale_group, scale_shape
from bitinfer.formats.new_folder import check_free_space, check_target, new_folder
from bitinfer.formats.packed import HEADS, PACKED_NAME, PackedHeader, PackedWriter, is_packed_folder
from bitinfer.formats.safetensors import DTYPE_BYTES, as_float32
from bitinfer.formats.scaled import group_scales, one_scale
from bitinfer.formats.source import SIDE_FILES, TensorSource
from bitinfer.i2s_layout import settle_layout
from bitinfer.runtime import active_isa

PACKINGS = ("auto", "i2", "t3", "t5", "b1")
TERNARIZATIONS = ("absmean",)
PLANE_HEADS = ("6+2", "5+3")  # forms of an int8 head in memory (docs/head.md)
PACKED_FILES = (*SIDE_FILES, PACKED_NAME)
_CHUNK_BYTES = 16 << 20  # of a stored tensor that is read and turned at a time

Progress = Callable[[int, int], None]  # bytes done, bytes in all


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
            for at in range(0, len(view), _CHUNK_BYTES):
                yield view[at : at + _CHUNK_BYTES]

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a canonical float tensor: the stored ones, or those of fp32 gain + 1."""
        stored = self.plan.head if name == HEAD else self.plan.floats[name]
        view = self.source.view(stored)
        if name not in self.plan.offset:
            return view
        return (as_float32(view, self.source.tensors[stored].dtype) + np.float32(1)).view(np.uint8)

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
        """Yield (first row, bytes of whole rows), about ``_CHUNK_BYTES`` each."""
        view, row_bytes = self.source.view(name), self._row_bytes(name)
        step = max(1, _CHUNK_BYTES // row_bytes)
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


def open_checkpoint(
    folder: Path,
    packing: str,
    head: str,
    ternarize: str | None = None,
    i2s_layout: str | None = None,
) -> CanonicalWeights:
    """Open a raw folder or GGUF file and check its config, names, shapes and dtypes.

    The arguments are those of ``convert``.

    Raises:
        CheckpointError, ConfigError: the folder cannot be used as it is.
        ValueError: an argument is not one of the choices.
    """
    check_choices(packing, head)
    if ternarize not in (None, *TERNARIZATIONS):
        raise ValueError(f"ternarize: expected {', '.join(TERNARIZATIONS)}, got {ternarize!r}")
    if is_packed_folder(folder):
        raise CheckpointError(
            f"{folder}: expected a Hugging Face checkpoint, got a packed folder: load it as it is,"
            " with any packing"
        )
    try:
        source = open_source(folder)
    except OSError as cause:
        raise CheckpointError(f"{folder}: cannot be read: {cause.strerror}") from None
    if isinstance(source, GgufSource) and ternarize is None:
        source.check_ternary()
    plan = plan_model(source.config, source, ternarize)
    active_isa()  # a wrong BITINFER_ISA speaks here, as UnsupportedIsaError
    if isinstance(source, GgufSource):
        settle_layout(source, plan, i2s_layout)
    if packing == "auto":
        tuned = tuning.find(plan.spec, tuning.model_key(plan.spec))
        packing = (
            "b1" if plan.binary else tuning.ternary_packing(tuned, in_groups=in_groups(plan.spec))
        )
    return CanonicalWeights(source, plan, packing, head)


def check_choices(packing: str, head: str, heads: Sequence[str] = HEADS) -> None:
    """Raise ValueError unless ``packing`` and ``head`` are among the choices."""
    if packing not in PACKINGS:
        raise ValueError(f"packing: expected {', '.join(PACKINGS)}, got {packing!r}")
    if head not in heads:
        mend = ": planes are made at load, from int8" if head in PLANE_HEADS else ""
        raise ValueError(f"head: expected {', '.join(heads)}, got {head!r}{mend}")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    packing: str = "auto",
    head: str = "int8",
    ternarize: str | None = None,
    i2s_layout: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Convert a local Hugging Face folder or GGUF file to a packed folder, whole or not at all.

    Equal inputs give equal bytes. ``target`` may be new, empty, or a packed folder, which is
    replaced.

    Args:
        source: Folder with config.json, safetensors weights and the tokenizer's files; or a GGUF
            file, or a folder with one.
        target: Folder to make; its parent must exist.
        packing: ``i2``, ``t3``, ``t5``, ``b1`` (of weights -1 and 1 only), or ``auto``: the
            fastest on this machine for ternary weights.
        head: ``int8`` (an int8 head; a tied embedding is kept as well) or ``source``.
        ternarize: ``absmean``: make full-precision weights ternary, which a model that was not
            trained so loses nearly all its quality by; None: refuse them.
        i2s_layout: Byte order of I2_S in a GGUF file, ``128``, ``64`` or ``4row``; None: known by
            the file's hash, or found with a probe.
        progress: Called with bytes done and bytes in all.

    Returns:
        ``target``.

    Raises:
        CheckpointError, ConfigError: the source cannot be used as it is.
        PackedFileError: the target cannot be written or must not be replaced.
        ValueError: an argument is not one of the choices.
    """
    source, target = Path(source), Path(target)
    weights = open_checkpoint(source, packing, head, ternarize, i2s_layout)
    check_target(target, PACKED_FILES, PACKED_NAME)
    contents = weights.source.contents()
    meter = _Meter(progress, weights.total_bytes + sum(map(len, contents.values())))
    header = PackedHeader(
        packing=weights.packing,
        head=head,
        spec=weights.plan.spec,
        ternary={weight.name: (weight.n, weight.k) for weight in weights.plan.ternary},
        groups=weights.groups,
        source={
            **_origin(source),
            **({} if ternarize is None else {"ternarized": ternarize}),
            "sha256": {name: _sha256(content, meter) for name, content in contents.items()},
            **({"notes": list(weights.source.notes)} if weights.source.notes else {}),
        },
    )
    with new_folder(target, PACKED_FILES, PACKED_NAME) as folder:
        writer = PackedWriter(folder / PACKED_NAME, header, weights.tensors)
        check_free_space(target, writer.total_bytes)
        with writer:
            for name in writer.order:
                for chunk in weights.chunks(name):
                    writer.write(name, chunk)
                    meter.add(chunk.nbytes)
        for name, content in weights.source.side_files().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return target


def _origin(source: Path) -> dict[str, str | None]:
    """Name and revision of a checkpoint: of a hub cache from its path, else the folder's name."""
    folder = (source.parent if source.is_file() else source).resolve()
    repo = re.fullmatch(r"models--([^/]+?)--([^/]+)", folder.parent.parent.name)
    if folder.parent.name == "snapshots" and repo:
        return {"name": f"{repo[1]}/{repo[2]}", "revision": folder.name}
    return {"name": source.name if source.is_file() else folder.name, "revision": None}


def _sha256(content: NDArray[np.uint8], meter: _Meter) -> str:
    digest = hashlib.sha256()
    for at in range(0, len(content), _CHUNK_BYTES):
        digest.update(content[at : at + _CHUNK_BYTES].data)
        meter.add(min(_CHUNK_BYTES, len(content) - at))
    return digest.hexdigest()


class _Meter:
    """Counts bytes and tells a progress callback."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)
