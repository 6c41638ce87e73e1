"""Does a packed file hold exactly the tensors that its spec calls for, with usable scales?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitinfer.errors import PackedFileError
from bitinfer.families.spec import (
    HEAD,
    HEAD_SCALE,
    float_shapes,
    scale_group,
    scale_shape,
    ternary_shapes,
)
from bitinfer.families.stored import FLOAT_DTYPES
from bitinfer.formats.packed import PackedFile
from bitinfer.formats.safetensors import as_float32, describe_shape
from bitinfer.json_file import shown

_FLOATS = tuple(dtype.lower() for dtype in FLOAT_DTYPES)


def check_weights(file: PackedFile, spec: Mapping[str, Any]) -> None:
    """Check names, dtypes, shapes, scales and the int8 head; packed codes are checked elsewhere.

    Args:
        file: A packed file whose header has been checked.
        spec: Its spec, checked.

    Raises:
        PackedFileError: a tensor is missing, unexpected or of another dtype or shape, a scale is
            not finite or (that of a whole matrix) not above 0, or the int8 head holds an
            impossible code.
    """
    wanted = _wanted(file.header.head, spec)
    ternary = ternary_shapes(spec)
    groups = {name: scale_group(spec, k) for name, (_, k) in ternary.items()}
    _check_same(file, ternary, file.header.ternary, "no such matrix")
    _check_same(
        file, {name: g for name, g in groups.items() if g}, file.header.groups, "no scale groups"
    )
    for name in [*wanted, *file]:
        if name in ternary:
            continue
        if name not in file or name not in wanted:
            state = "is missing" if name in wanted else "is not called for by the spec"
            raise PackedFileError(f"{shown(name)}: this tensor {state} in {file.path}")
        (_, dtype, shape), (dtypes, expected) = file.tensor(name), wanted[name]
        if dtype not in dtypes or shape != expected:
            raise PackedFileError(
                f"{name}: expected {' or '.join(dtypes)} {describe_shape(expected)}, got"
                f" {dtype} {describe_shape(shape)} in {file.path}"
            )
    for name, group in groups.items():
        _check_scale(file, f"{name}_scale", "above 0" if group is None else "")
    if file.header.head == "int8":
        _check_scale(file, HEAD_SCALE, "of at least 0")
        _check_int8_head(file, spec["hidden_size"])


def _wanted(
    head: str, spec: Mapping[str, Any]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Name to (dtypes, shape) of every tensor but the ternary matrices."""
    vocab, hidden = spec["vocab_size"], spec["hidden_size"]
    wanted = {name: (_FLOATS, shape) for name, shape in float_shapes(spec).items()}
    for name, (n, k) in ternary_shapes(spec).items():
        grouped = scale_group(spec, k) is not None
        wanted[f"{name}_scale"] = (_FLOATS if grouped else ("f32",), scale_shape(spec, n, k))
    if head == "int8":
        wanted[HEAD] = (("i8",), (vocab, -(-hidden // 64) * 64))
        wanted[HEAD_SCALE] = (("f32",), (vocab,))
    elif not spec["tie_word_embeddings"]:
        wanted[HEAD] = (_FLOATS, (vocab, hidden))
    return wanted


def _check_same(
    file: PackedFile, wanted: Mapping[str, Any], stored: Mapping[str, Any], none: str
) -> None:
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            raise PackedFileError(
                f"{shown(name)}: expected {wanted.get(name, none)} by the spec, got"
                f" {stored.get(name, 'none')} in {file.path}"
            )


def _check_scale(file: PackedFile, name: str, least: str) -> None:
    """Refuse scales that are not finite or, where ``least`` says so, too small.

    Of groups any will do: one of 0 is that of a group of zeros.
    """
    data, dtype, _ = file.tensor(name)
    values = as_float32(data, dtype.upper())
    above = {"above 0": values > 0, "of at least 0": values >= 0, "": True}[least]
    good = np.isfinite(values) & above
    if not good.all():
        row = int(np.argmin(good))
        expected = f"a finite scale {least}".rstrip()
        raise PackedFileError(
            f"{name}: expected {expected}, got {values[row]} at {row} in {file.path}: the file is"
            " damaged, convert it again"
        )


def _check_int8_head(file: PackedFile, hidden: int) -> None:
    data, _, shape = file.tensor(HEAD)
    codes = data.view(np.int8).reshape(shape)
    if codes.min() < -127 or codes[:, hidden:].any():
        raise PackedFileError(
            f"{HEAD}: expected int8 codes from -127 to 127 and zero padding, got others in"
            f" {file.path}: the file is damaged, convert it again"
        )
