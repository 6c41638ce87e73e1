"""GGUF files of our own: header, metadata, then each tensor's bytes as they are made.

``gguf_header`` draws the layout. Little-endian, version 3, tensors at multiples of 32; equal inputs
give equal bytes. The file is whole or not there at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ExportError
from bitinfer.formats.gguf_layout import DEFAULT_ALIGNMENT
from bitinfer.formats.gguf_types import TYPES, GgmlType
from bitinfer.formats.new_file import new_file
from bitinfer.formats.new_folder import check_free_space

_VERSION = 3
_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_ARRAYS = {"int32": (5, "<i4"), "float32": (6, "<f4")}

# A value of the metadata: a whole number is written as u32, a float as f32.
Value = bool | int | float | str | Sequence[str] | NDArray[np.int32] | NDArray[np.float32]


@dataclass(frozen=True)
class NewTensor:
    """A tensor to write: name of its ggml type, as in ``gguf_types``, and shape (N, K)."""

    kind: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its bytes, without padding."""
        size = _type(self.kind)[1].size(self.shape)
        assert size is not None, f"{self.kind} cannot hold {self.shape}"
        return size


class GgufWriter:
    """A GGUF file, laid out; ``create`` writes it.

    Attributes:
        path: The file.
        tensors: What it will hold, in the order in which it must be written.
        total_bytes: Size of the finished file.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, NewTensor]
    ) -> None:
        self.path = path
        self.tensors = tensors
        counts = struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))
        keys = b"".join(_string(key) + _value(value) for key, value in metadata.items())
        entries, at = b"", 0
        for name, tensor in tensors.items():
            entries += _entry(name, tensor, at)
            at += _padded(tensor.num_bytes)
        self._head = b"GGUF" + counts + keys + entries
        self.total_bytes = _padded(len(self._head)) + at

    @contextmanager
    def create(self) -> Iterator[TensorSink]:
        """Write the header and yield what takes the tensors, all of them.

        Raises:
            ExportError: the disk is full, or the file cannot be written; nothing of it is left.
        """
        try:
            check_free_space(self.path, self.total_bytes, ExportError)
            with new_file(self.path) as file:
                file.write(self._head + bytes(_padded(len(self._head)) - len(self._head)))
                sink = TensorSink(file, self.tensors)
                yield sink
                sink.close()
        except OSError as cause:
            raise ExportError(f"{self.path}: cannot be written: {cause.strerror}") from None


class TensorSink:
    """Takes the tensors' bytes front to back."""

    def __init__(self, file: BinaryIO, tensors: Mapping[str, NewTensor]) -> None:
        self._file = file
        self._pending = iter(tensors.items())

    def write(self, name: str, chunks: Iterable[NDArray[Any]]) -> None:
        """Write the next tensor; ``chunks`` are its bytes in order, as arrays of any dtype."""
        expected, tensor = next(self._pending, ("no more", None))
        if tensor is None or name != expected:
            raise ValueError(f"expected tensor {expected} next, got {name}")
        size = tensor.num_bytes
        done = 0
        for chunk in chunks:
            data = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
            done += len(data)
            self._file.write(data.data)
        if done != size:
            raise ValueError(f"{name}: expected {size} bytes, got {done}")
        self._file.write(bytes(_padded(size) - size))

    def close(self) -> None:
        """Check that nothing is missing."""
        if (missing := next(self._pending, None)) is not None:
            raise ValueError(f"not all tensors were written: {missing[0]}")


def _type(kind: str) -> tuple[int, GgmlType]:
    """Number and type of the name ``kind``."""
    return next((n, t) for n, types in TYPES.items() for t in types if t.name == kind)


def _padded(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    """A value with its type before it."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, np.ndarray):
        kind, dtype = _ARRAYS[value.dtype.name]
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + value.astype(dtype).tobytes()
    return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))


def _entry(name: str, tensor: NewTensor, offset: int) -> bytes:
    lengths = tensor.shape[::-1]  # fastest first
    dims = struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
    return _string(name) + dims + struct.pack("<IQ", _type(tensor.kind)[0], offset)
