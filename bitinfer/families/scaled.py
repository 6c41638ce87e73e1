"""Checkpoints whose floats are ternary weights times their scales, and how the scales lie.

One for a matrix (Falcon-E's revision ``bfloat16``, small TriLM); one for each row (TriLM trained on
several devices that had rows of their own); one for each row and share of the columns (the same,
where devices shared out columns); one for each row and 128 columns (Bonsai). Nothing but the
weights tells which, and where they show none of these the model is dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bitinfer.errors import CheckpointError
from bitinfer.families.spec import scale_group
from bitinfer.formats.safetensors import as_float32
from bitinfer.formats.scaled import group_scales, has_zero, one_scale
from bitinfer.formats.source import TensorSource
from bitinfer.json_file import shown

# Traits of the spec, coarsest first.
_LAYOUTS: tuple[Mapping[str, int], ...] = (
    {},
    *({"scale_group_count": count} for count in (1, 2, 3, 4, 6, 8)),
    *({"scale_group_size": size} for size in (128, 64, 32)),
)
# Of activations: nothing says that these models were trained with int8 ones, so 15 bits.
FLOAT_LEVELS = 16383
_SHOWN_ROWS = 64  # of a dense matrix, whose distance from ternary is told
_SHOWN_WEIGHTS = 128  # of it, whose magnitudes are counted
_DENSE = (
    "the model is dense, not ternary: run it with llama.cpp, or 'bitinfer convert --ternarize"
    " absmean' (for the masters of a ternary model; others lose their quality)"
)
_MASTERS = (
    "by their name these are masters of a ternary model: pack them with 'bitinfer convert"
    " --ternarize absmean'"
)

Stored = tuple[str, int, int]  # name, N, K


def scale_layout(source: TensorSource, matrices: Sequence[Stored]) -> Mapping[str, Any]:
    """The coarsest layout of scales by which all ``matrices`` are ternary, as traits of the spec.

    Reads all of them once, and what is dense only until that shows.

    Raises:
        CheckpointError: one is ternary by none (names it and says how far it is from ternary).
    """
    for layout in _LAYOUTS:
        odd = next((stored for stored in matrices if not _fits(source, stored, layout)), None)
        if odd is None:
            return layout
    assert odd is not None
    raise _dense(source, odd)


def is_scaled(source: TensorSource, matrices: Sequence[Stored]) -> bool:
    """Whether all ``matrices`` are ternary by some layout of scales; reads as ``scale_layout``."""
    return any(all(_fits(source, stored, each) for stored in matrices) for each in _LAYOUTS)


def without_zeros(source: TensorSource, matrices: Sequence[Stored]) -> bool:
    """Whether no weight of ``matrices`` is 0; reads up to the first that is."""
    names = (name for name, _, _ in matrices)
    return not any(has_zero(source.view(name), source.tensors[name].dtype) for name in names)


def _fits(source: TensorSource, stored: Stored, layout: Mapping[str, int]) -> bool:
    name, n, k = stored
    data, dtype = source.view(name), source.tensors[name].dtype
    group = scale_group(layout, k)
    if group is None:
        return one_scale(data, dtype, n, k) is not None
    return group_scales(data, dtype, n, k, group) is not None


def _dense(source: TensorSource, stored: Stored) -> CheckpointError:
    """What is said of a matrix that is not ternary: how far it is from that, and who runs it."""
    name, n, k = stored
    data, count = source.view(name), min(k, _SHOWN_WEIGHTS)
    rows = data[: len(data) // n * min(n, _SHOWN_ROWS)]
    weights = as_float32(rows, source.tensors[name].dtype).astype(np.float64)
    magnitudes = np.unique(np.abs(weights[:count][weights[:count] != 0]))
    with np.errstate(all="ignore"):
        scale = np.abs(weights).mean()
        rest = weights - scale * np.clip(np.rint(weights / scale), -1, 1)
        distance = np.linalg.norm(rest) / np.linalg.norm(weights)
    mend = _MASTERS if "prequantized" in str(source.path).lower() else _DENSE
    return CheckpointError(
        f"{shown(name)}: expected one magnitude in each matrix, row or group of columns, got"
        f" {len(magnitudes)} in its first {count} weights ({distance:.0%} from its ternary form) in"
        f" {source.path_of(name)}: {mend}"
    )
