"""Which GGUF file is meant where a folder or a repository is named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bitinfer.errors import CheckpointError

ENDING = ".gguf"
# Ternary types as file names have them, the best first: I2_S keeps a scale of 32 bits.
_TERNARY = ("i2_s", "tq2_0", "tq1_0", "q2_0", "q1_0", "tl2", "tl1")
_DENSE = ("q[2-6]_k", "q[45]_[01]", "q8_0", r"iq\d_(?!bn)\w+", "mxfp4")


def choose_gguf(names: Iterable[str]) -> list[str]:
    """The file to take of several: the one of the best ternary type by its name.

    Args:
        names: Names of GGUF files of one model.

    Returns:
        The file; several where the rule decides nothing, none where there are none.
    """
    files = sorted(names)
    for kind in _TERNARY:
        of_kind = [name for name in files if _is_named(name, kind)]
        if of_kind:
            return of_kind
    return files


def is_named_dense(name: str) -> bool:
    """Whether a file is not ternary by its name; beside a ternary type others say nothing."""
    return any(_is_named(name, kind) for kind in _DENSE) and not any(
        _is_named(name, kind) for kind in _TERNARY
    )


def _is_named(name: str, kind: str) -> bool:
    return re.search(rf"(?<![a-z\d]){kind}(?![a-z\d])", name.lower()) is not None


def is_gguf(path: Path) -> bool:
    """Whether ``path`` is a file that says it is GGUF, by its name or its first bytes."""
    if not path.is_file():
        return False
    if path.suffix == ENDING:
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that ``path`` is, or that a folder without safetensors holds; None: none.

    Raises:
        CheckpointError: the folder holds several, and `choose_gguf` decides nothing.
    """
    if is_gguf(path):
        return path
    names = [file.name for file in path.iterdir()] if path.is_dir() else []
    if any(name.endswith(".safetensors") for name in names):
        return None
    chosen = choose_gguf(name for name in names if name.endswith(ENDING))
    if len(chosen) > 1:
        raise CheckpointError(
            f"{path}: expected one GGUF file of a ternary type, got {', '.join(chosen[:3])}: name"
            " the one to load"
        )
    return path / chosen[0] if chosen else None
