"""A model folder, packed or raw, as the decoder takes it: checked, packed, copied if need be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core, tuning
from bitinfer.canonical import CanonicalWeights
from bitinfer.config import inv_freq, local_inv_freq
from bitinfer.convert import PLANE_HEADS, Progress, open_checkpoint
from bitinfer.errors import CheckpointError, PackedFileError
from bitinfer.families.check import check_weights
from bitinfer.families.spec import DEFAULTS, EMBEDDING, HEAD, HEAD_SCALE, check_spec
from bitinfer.formats.packed import PACKED_NAME, PackedFile, Tensor, is_packed_folder
from bitinfer.resident import HugeMemory, copy_mapped, has_room, mapped_bytes

_NOTED_BYTES = 100_000_000  # work at load below this is not worth a note


@dataclass
class LoadedModel:
    """What a folder holds, as the decoder takes it.

    Attributes:
        spec: The decoder's spec.
        weights: Name to tensor.
        packing: Of the ternary matrices.
        key: What ``bitinfer tune`` knows the model by.
        tuned: What that found.
        mapped: Whether the ternary matrices are read where the file is mapped.
        notes: Sentences for the user about the work done.
    """

    spec: dict[str, Any]
    weights: dict[str, Tensor]
    packing: str
    key: str
    tuned: tuning.Tuned | None
    notes: list[str]
    mapped: bool


def load_folder(
    folder: Path, *, packing: str, head: str, weights: str, progress: Progress | None
) -> LoadedModel:
    """Load a packed or a raw folder; the arguments are those of ``Engine.load``, already checked.

    Raises:
        BitinferError: the folder cannot be used as it is (see errors.py).
        ValueError: ``weights`` is ``mmap`` where the weights must be packed first.
    """
    notes: list[str] = []
    load = _load_packed if is_packed_folder(folder) else _load_raw
    model = load(folder, packing, head, weights, notes, progress)
    _copy_weights(model, head, weights, progress)
    config = check_spec(model.spec, str(folder), PackedFileError)
    model.weights["rope.inv_freq"] = _tensor(inv_freq(config))
    if (local := local_inv_freq(config)) is not None:
        model.weights["rope.local_inv_freq"] = _tensor(local)
    return model


def _load_packed(
    folder: Path,
    packing: str,
    head: str,
    weights_in: str,
    notes: list[str],
    progress: Progress | None,
) -> LoadedModel:
    """Load a packed folder; repacks in memory where asked or faster."""
    file = PackedFile(folder / PACKED_NAME)
    spec = {**DEFAULTS, **file.header.spec}
    check_spec(spec, str(file.path), PackedFileError)
    check_weights(file, spec)
    file.validate_codes()
    key = tuning.model_key(spec, file.header.source.get("sha256"))
    tuned = tuning.find(spec, key)
    stored = file.header.packing
    # Nothing is smaller or faster than b1, where the weights allow it.
    keep = weights_in == "mmap" or stored == "b1"
    wanted = stored if keep else tuning.ternary_packing(tuned, in_groups=file.header.in_groups)
    wanted = wanted if packing == "auto" else packing
    if weights_in == "mmap" and wanted != stored:
        raise ValueError(
            f"weights: expected auto or copy, as {file.path} holds {stored} and not {wanted}, got"
            " 'mmap'"
        )
    weights = {name: file.tensor(name) for name in file}
    if wanted != stored:
        num_bytes = _repack(weights, file, wanted, progress)
        if num_bytes >= _NOTED_BYTES:
            notes.append(
                f"repacked {num_bytes / 1e6:.0f} MB from {stored} to {wanted} in memory"
                + (", faster on this machine" if packing == "auto" else "")
            )
    _choose_head(spec, weights, head, file.path, notes)
    return LoadedModel(spec, weights, wanted, key, tuned, notes, mapped=wanted == stored)


def _repack(
    weights: dict[str, Tensor], file: PackedFile, packing: str, progress: Progress | None
) -> int:
    """Bring the ternary matrices into another packing, in huge pages; returns their old bytes."""
    matrices = file.header.ternary
    groups = file.header.groups
    sizes = [
        _core.packed_bytes(packing, n, k, group=groups.get(name))
        for name, (n, k) in matrices.items()
    ]
    block = HugeMemory(sizes)
    total = sum(len(weights[name][0]) for name in matrices)
    done = 0
    for name, (n, k) in matrices.items():
        view = weights[name][0]
        try:
            packed = _core.repack(view, file.header.packing, packing, n, k, group=groups.get(name))
        except ValueError as cause:
            raise PackedFileError(f"{name}: {cause} in {file.path}: take another packing") from None
        weights[name] = (block.copy(packed), packing, (n, k))
        done += len(view)
        if progress is not None:
            progress(done, total)
    return total


def _choose_head(
    spec: dict[str, Any], weights: dict[str, Tensor], head: str, path: Path, notes: list[str]
) -> None:
    """Leave in ``weights`` the head asked for; an int8 one is made where none is stored."""
    has_int8 = HEAD_SCALE in weights
    if head == "source" and has_int8:
        if not spec["tie_word_embeddings"]:
            raise PackedFileError(
                f"{path}: head: expected one in source dtype, got int8: convert the checkpoint"
                " again with --head source"
            )
        del weights[HEAD], weights[HEAD_SCALE]
    elif head != "source" and not has_int8:
        name = EMBEDDING if spec["tie_word_embeddings"] else HEAD
        data, dtype, (rows, columns) = weights[name]
        try:
            codes, scales = _core.quantize_rows_i8(data, dtype, rows, columns)
        except ValueError as cause:
            raise CheckpointError(f"{name}: {cause} in {path}") from None
        weights[HEAD], weights[HEAD_SCALE] = _tensor(codes), _tensor(scales)
        if len(data) >= _NOTED_BYTES:
            notes.append(f"made an int8 head of {codes.nbytes / 1e6:.0f} MB in memory")
    if head in PLANE_HEADS and len(weights[HEAD][0]) >= _NOTED_BYTES:
        notes.append(f"split the head of {len(weights[HEAD][0]) / 1e6:.0f} MB in memory: {head}")


def _load_raw(
    folder: Path,
    packing: str,
    head: str,
    weights_in: str,
    notes: list[str],
    progress: Progress | None,
) -> LoadedModel:
    """Load a raw folder; float tensors stay mapped, the rest is made."""
    source = open_checkpoint(folder, packing, "source")
    if weights_in == "mmap":
        raise ValueError(
            f"weights: expected auto or copy, as {folder} must be packed first, got 'mmap': convert"
            " it with 'bitinfer convert'"
        )
    block = HugeMemory([source.tensors[name][1][0] for name in source.ternary])
    weights: dict[str, Tensor] = {}
    for name in source.tensors:
        weights[name] = _in_memory(source, name, block)
        if progress is not None:
            progress(sum(len(data) for data, _, _ in weights.values()), source.total_bytes)
    notes += source.source.notes
    notes.append(f"packed {folder.name} in memory; 'bitinfer convert' keeps it packed")
    _choose_head(source.plan.spec, weights, head, folder, [])
    spec = source.plan.spec
    key = tuning.model_key(spec)
    tuned = tuning.find(spec, key)
    return LoadedModel(spec, weights, source.packing, key, tuned, notes, mapped=False)


def _copy_weights(model: LoadedModel, head: str, asked: str, progress: Progress | None) -> None:
    """Copy what each step reads whole into huge pages, if asked or (with room) if tuned so."""
    unread = [EMBEDDING]
    if head == "source" and model.spec["tie_word_embeddings"]:
        unread = []
    elif head in PLANE_HEADS:
        unread.append(HEAD)  # the decoder has it in memory of its own
    sizes = mapped_bytes(model.weights, unread)
    total = sum(sizes.values())
    if asked == "auto":
        asked = model.tuned.weights if model.tuned and has_room(total) else "mmap"
    if asked == "mmap":
        return
    copy_mapped(model.weights, sizes, progress)
    model.mapped = False
    if total >= _NOTED_BYTES:
        model.notes.append(f"copied {total / 1e6:.0f} MB of weights into huge pages")


def _in_memory(source: CanonicalWeights, name: str, block: HugeMemory) -> Tensor:
    dtype, shape = source.tensors[name]
    if name in source.ternary:
        (packed,) = source.chunks(name)
        return block.copy(packed), source.packing, (source.ternary[name].n, source.ternary[name].k)
    if name.endswith(".weight_scale"):
        (scale,) = source.chunks(name)
        return np.ascontiguousarray(scale).reshape(-1).view(np.uint8), dtype.lower(), shape
    view = source.view(name)
    # The format aligns nothing; the decoder reads floats at their natural alignment.
    return (view.copy() if view.ctypes.data % 4 else view), dtype.lower(), shape


def _tensor(array: NDArray[Any]) -> Tensor:
    """An int8 or float32 array as the decoder takes it."""
    dtype = {"int8": "i8", "float32": "f32"}[array.dtype.name]
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8), dtype, array.shape
