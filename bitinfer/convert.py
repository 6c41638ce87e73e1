"""Raw checkpoints to packed folders: opened, checked, and streamed tensor by tensor."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer import tuning
from bitinfer.canonical import CHUNK_BYTES, CanonicalWeights
from bitinfer.errors import CheckpointError
from bitinfer.families import open_source, plan_model
from bitinfer.families.gguf_source import GgufSource
from bitinfer.families.spec import in_groups
from bitinfer.formats.new_folder import check_free_space, check_target, new_folder
from bitinfer.formats.packed import HEADS, PACKED_NAME, PackedHeader, PackedWriter, is_packed_folder
from bitinfer.formats.source import SIDE_FILES
from bitinfer.i2s_layout import settle_layout
from bitinfer.runtime import active_isa

PACKINGS = ("auto", "i2", "t3", "t5", "b1")
TERNARIZATIONS = ("absmean",)
PLANE_HEADS = ("6+2", "5+3")  # forms of an int8 head in memory (docs/head.md)
PACKED_FILES = (*SIDE_FILES, PACKED_NAME)

Progress = Callable[[int, int], None]  # bytes done, bytes in all


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
    elif i2s_layout is not None:
        raise ValueError(f"i2s_layout: expected none, as {folder} is no GGUF file")
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
    for at in range(0, len(content), CHUNK_BYTES):
        digest.update(content[at : at + CHUNK_BYTES].data)
        meter.add(min(CHUNK_BYTES, len(content) - at))
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
