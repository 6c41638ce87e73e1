"""The packed file: a safetensors container of packed ternary matrices, and its strict validator.

Layout (docs/packed-format.md draws the packed bytes). ``__metadata__`` holds strings: ``format``,
``format_version``, ``packing``, ``head`` ("int8" or "source"), and as JSON ``spec`` (the decoder's
spec), ``ternary`` (name -> [N, K], or [N, K, columns of a group]) and ``source`` (where the weights
came from). The header is padded with spaces so that tensor data begins at a multiple of 64; packed
matrices come first, each U8 ``(packed_bytes,)``, a multiple of 64, so that each begins at one; then
I8, F32, 16-bit floats.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core
from bitinfer.errors import PackedFileError
from bitinfer.formats.safetensors import DTYPE_BYTES, SafetensorsFile
from bitinfer.json_file import parse_json_object, shown

PACKED_NAME = "bitinfer.safetensors"
FORMAT = "bitinfer-packed"
FORMAT_VERSION = 2
OLDEST_VERSION = 1  # had no groups of columns
HEADS = ("int8", "source")
ALIGNMENT = 64  # kPackedAlign of csrc/pack/format.h
_RANKS = {"U8": 0, "I8": 1, "F32": 2, "F16": 3, "BF16": 3}  # order of the dtypes in the file

# A tensor as _core.Decoder takes it: bytes, dtype ("u8", "i8", "f32" ... or a packing), shape.
Tensor = tuple[NDArray[np.uint8], str, tuple[int, ...]]


@dataclass(frozen=True)
class PackedHeader:
    """The metadata of a packed file.

    Attributes:
        packing: Name of the packed layout of every ternary matrix.
        head: ``int8`` if the file holds an int8 head, else ``source``.
        spec: The decoder's spec.
        ternary: Name to (N, K) of each ternary matrix.
        groups: Name to columns of a group, of matrices with a scale for each row and group.
        source: ``name``, ``revision`` (or None) and ``sha256`` (file name to digest);
            ``ternarized`` (how) where that was done by the conversion; ``notes``, sentences for
            the user on what was found or mended.
    """

    packing: str
    head: str
    spec: Mapping[str, Any]
    ternary: Mapping[str, tuple[int, int]]
    source: Mapping[str, Any]
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_groups(self) -> bool:
        """Whether the rows of some matrix have several weight scales."""
        return any(group < self.ternary[name][1] for name, group in self.groups.items())

    def metadata(self) -> dict[str, str]:
        """The header's ``__metadata__``."""
        ternary = {
            name: [*shape, self.groups[name]] if name in self.groups else list(shape)
            for name, shape in self.ternary.items()
        }
        return {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "packing": self.packing,
            "head": self.head,
            "spec": _json(self.spec),
            "ternary": _json(ternary),
            "source": _json(self.source),
        }


class PackedWriter:
    """Writes a packed file front to back; a context manager that syncs the file at its end.

    Attributes:
        order: The tensors' names in the order in which they must be written.
        total_bytes: Size of the finished file.
    """

    def __init__(
        self,
        path: Path,
        header: PackedHeader,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    ) -> None:
        """Lay the file out; nothing is written yet.

        Args:
            path: The file to create.
            header: Its metadata.
            tensors: Name to (safetensors dtype, shape) of every tensor; ternary matrices as U8
                ``(packed_bytes,)``. None is empty.
        """
        self.path = path
        self.order = sorted(tensors, key=lambda name: _RANKS[tensors[name][0]])
        self._sizes: dict[str, int] = {}
        entries: dict[str, Any] = {"__metadata__": header.metadata()}
        at = 0
        for name in self.order:
            dtype, shape = tensors[name]
            size = DTYPE_BYTES[dtype] * math.prod(shape)
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            self._sizes[name] = size
            at += size
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        self._head = len(text).to_bytes(8, "little") + text
        self.total_bytes = len(self._head) + at
        self._pending = iter(self.order)
        self._left = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> PackedWriter:
        self._file = self.path.open("xb")
        self._file.write(self._head)
        return self

    def write(self, name: str, data: NDArray[Any]) -> None:
        """Append the next bytes of tensor ``name``; tensors come whole and in ``order``."""
        assert self._file is not None, "write() outside of the context"
        if self._left == 0:
            expected = next(self._pending, None)
            if name != expected:
                raise ValueError(f"{self.path}: expected tensor {expected} next, got {name}")
            self._left = self._sizes[name]
        block = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        if len(block) > self._left:
            raise ValueError(f"{name}: expected {self._left} more bytes, got {len(block)}")
        self._file.write(block.data)
        self._left -= len(block)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        with self._file:
            if kind is not None:
                return
            if self._left or (missing := next(self._pending, None)) is not None:
                raise ValueError(
                    f"{self.path}: not all tensors were written: {self._left or missing}"
                )
            self._file.flush()
            os.fsync(self._file.fileno())


class PackedFile:
    """A mapped packed file whose header has been checked.

    Attributes:
        path: The file.
        header: Its metadata, parsed.
    """

    def __init__(self, path: Path) -> None:
        """Map ``path`` and check its header; the packed codes are checked by ``validate_codes``.

        Raises:
            PackedFileError: the file is missing, damaged, of a newer version, or breaks a rule of
                the format.
        """
        self.path = path
        self._file = SafetensorsFile(path, PackedFileError)
        self.header = self._read_header()
        self._check_tensors()

    def __contains__(self, name: str) -> bool:
        return name in self._file.tensors

    def __iter__(self) -> Any:
        return iter(self._file.tensors)

    def tensor(self, name: str) -> Tensor:
        """A tensor as the decoder takes it; its bytes are a read-only view that keeps the file."""
        info = self._file.tensors[name]
        if name in self.header.ternary:
            return self._file.view(name), self.header.packing, self.header.ternary[name]
        return self._file.view(name), info.dtype.lower(), info.shape

    def validate_codes(self) -> None:
        """Check every packed code, in parallel.

        Raises:
            PackedFileError: a code encodes no ternary value (names matrix, row and column).
        """
        for name, (n, k) in self.header.ternary.items():
            try:
                view, group = self._file.view(name), self.header.groups.get(name)
                _core.validate(view, self.header.packing, n, k, group=group)
            except ValueError as cause:
                raise PackedFileError(
                    f"{name}: {cause} in {self.path}: the file is damaged, convert it again"
                ) from None

    def _refuse(self, text: str) -> PackedFileError:
        return PackedFileError(f"{self.path}: {text}")

    def _read_header(self) -> PackedHeader:
        data = self._file.metadata
        if data.get("format") != FORMAT:
            raise self._refuse(
                f'format: expected "{FORMAT}", got "{shown(data.get("format"))}": make the folder'
                " with 'bitinfer convert'"
            )
        version = data.get("format_version", "")
        if version not in map(str, range(OLDEST_VERSION, FORMAT_VERSION + 1)):
            newer = version.isdecimal() and len(version) < 9 and int(version) > FORMAT_VERSION
            mend = (
                "update bitinfer, or convert the checkpoint again" if newer else "convert it again"
            )
            raise self._refuse(
                f"format_version: expected {OLDEST_VERSION} to {FORMAT_VERSION}, got"
                f" {shown(version)}: {mend}"
            )
        packing, head = data.get("packing", ""), data.get("head", "")
        if packing not in _core.layouts():
            choices = " or ".join(_core.layouts())
            raise self._refuse(f"packing: expected {choices}, got {shown(packing)}")
        if head not in HEADS:
            raise self._refuse(f"head: expected {' or '.join(HEADS)}, got {shown(head)}")
        spec, ternary, source = (self._parse(name) for name in ("spec", "ternary", "source"))
        for name, shape in ternary.items():
            if not _is_matrix(shape):
                raise self._refuse(
                    f"ternary: {shown(name)}: expected [N, K] or [N, K, columns of a group], got"
                    f" {shown(shape)}"
                )
        shapes = {name: (shape[0], shape[1]) for name, shape in ternary.items()}
        groups = {name: shape[2] for name, shape in ternary.items() if len(shape) == 3}
        return PackedHeader(packing, head, spec, shapes, source, groups)

    def _parse(self, name: str) -> dict[str, Any]:
        text = self._file.metadata.get(name, "").encode()
        return parse_json_object(text, f"{self.path}: {name}", PackedFileError)

    def _check_tensors(self) -> None:
        """Packed matrices are where and as long as they must be; all else has a dtype of ours."""
        for name in self.header.ternary:
            if name not in self._file.tensors:
                raise self._refuse(f"{shown(name)}: expected this ternary matrix, it is missing")
        for name, info in self._file.tensors.items():
            if info.dtype not in _RANKS or (info.dtype == "U8") != (name in self.header.ternary):
                raise self._refuse(f"{shown(name)}: expected no tensor of this kind, got {info}")
            if info.dtype != "U8":
                continue
            n, k = self.header.ternary[name]
            try:
                group = self.header.groups.get(name)
                size = _core.packed_bytes(self.header.packing, n, k, group=group)
            except ValueError as cause:
                raise self._refuse(f"{shown(name)}: {cause}") from None
            if info.shape != (size,):
                raise self._refuse(
                    f"{shown(name)}: expected U8 ({size}) for {self.header.packing} ({n}, {k}),"
                    f" got {info}"
                )
            if (self._file.data_start + info.begin) % ALIGNMENT:
                raise self._refuse(f"{shown(name)}: expected to begin at a multiple of {ALIGNMENT}")


def is_packed_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a packed file; False too for a path that cannot be looked at."""
    try:
        return (folder / PACKED_NAME).exists()
    except OSError:  # a name too long, or no permission: opening it says so
        return False


def _is_matrix(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) in (2, 3)
        and all(type(length) is int and 1 <= length < 1 << 23 for length in shape)
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
