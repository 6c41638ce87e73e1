"""Does a packed file hold exactly the tensors that its spec calls for, with usable scales?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitinfer.errors import PackedFileError
from bitinfer.families.plan import FLOAT_DTYPES
from bitinfer.families.spec import HEAD, HEAD_SCALE, float_shapes, ternary_shapes
from bitinfer.formats.packed import PackedFile
from bitinfer.formats.safetensors import describe_shape
from bitinfer.json_file import shown

_FLOATS = tuple(dtype.lower() for dtype in FLOAT_DTYPES)


def check_weights(file: PackedFile, spec: Mapping[str, Any]) -> None:
    """Check names, dtypes, shapes, scales and the int8 head; packed codes are checked elsewhere.

    Args:
        file: A packed file whose header has been checked.
        spec: Its spec, checked.

    Raises:
        PackedFileError: a tensor is missing, unexpected or of another dtype or shape, a scale is
            not finite or not above 0, or the int8 head holds an impossible code.
    """
    wanted = _wanted(file.header.head, spec)
    ternary = ternary_shapes(spec)
    if dict(file.header.ternary) != ternary:
        names = sorted(
            name
            for name in ternary.keys() | file.header.ternary.keys()
            if ternary.get(name) != file.header.ternary.get(name)
        )
        raise PackedFileError(
            f"{shown(names[0])}: expected {ternary.get(names[0], 'no such matrix')} by the spec,"
            f" got {file.header.ternary.get(names[0], 'none')} in {file.path}"
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
    for name in ternary:
        _check_scale(file, f"{name}_scale", above_zero=True)
    if file.header.head == "int8":
        _check_scale(file, HEAD_SCALE, above_zero=False)
        _check_int8_head(file, spec["hidden_size"])


def _wanted(
    head: str, spec: Mapping[str, Any]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Name to (dtypes, shape) of every tensor but the ternary matrices."""
    vocab, hidden = spec["vocab_size"], spec["hidden_size"]
    wanted = {name: (_FLOATS, shape) for name, shape in float_shapes(spec).items()}
    wanted.update({f"{name}_scale": (("f32",), (1,)) for name in ternary_shapes(spec)})
    if head == "int8":
        wanted[HEAD] = (("i8",), (vocab, -(-hidden // 64) * 64))
        wanted[HEAD_SCALE] = (("f32",), (vocab,))
    elif not spec["tie_word_embeddings"]:
        wanted[HEAD] = (_FLOATS, (vocab, hidden))
    return wanted


def _check_scale(file: PackedFile, name: str, *, above_zero: bool) -> None:
    values = np.frombuffer(file.tensor(name)[0].tobytes(), "<f4")
    good = np.isfinite(values) & ((values > 0) if above_zero else (values >= 0))
    if not good.all():
        row = int(np.argmin(good))
        raise PackedFileError(
            f"{name}: expected a finite scale {'above' if above_zero else 'of at least'} 0, got"
            f" {values[row]} at {row} in {file.path}: the file is damaged, convert it again"
        )


def _check_int8_head(file: PackedFile, hidden: int) -> None:
    data, _, shape = file.tensor(HEAD)
    codes = data.view(np.int8).reshape(shape)
    if codes.min() < -127 or codes[:, hidden:].any():
        raise PackedFileError(
            f"{HEAD}: expected int8 codes from -127 to 127 and zero padding, got others in"
            f" {file.path}: the file is damaged, convert it again"
        )
