"""The header of a GGUF file: metadata and tensor entries, every length checked before it is used.

``"GGUF"``, u32 version, u64 tensors, u64 keys; each key as string, u32 type, value; each tensor as
string, u32 dimensions, u64 lengths (fastest first), u32 type, u64 offset. A string is a u64 length
and its bytes. All little-endian. Source: ggml-org/ggml, docs/gguf.md.

A hostile header costs little time and memory: counts have limits, arrays of numbers are views, and
strings of arrays are found with vector operations and decoded when they are asked for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.formats.gguf_strings import IrregularStringsError, StringArray, find_strings
from bitinfer.json_file import impostor, shown

VERSIONS = (2, 3)
MAX_HEADER_BYTES = 24 << 20  # real ones have 8 MB of vocabulary
MAX_TEXT_BYTES = 4 << 20  # keys, names, and strings outside of arrays, together
MAX_NAME_BYTES = 64
MAX_KEYS = 1024
MAX_TENSORS = 4096
MAX_ARRAYS = 1024
MAX_STRINGS = 1 << 20  # in arrays, together
MAX_NESTING = 4
MAX_DIMENSIONS = 4
MAX_LENGTH = 1 << 31
MEND = "the file is damaged, or of a kind that is not read: get another"

_NUMBERS = {
    **dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<u1"))),
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# A value of the metadata: an array of numbers as a view of the file, one of strings as StringArray,
# one of arrays as a list.
Value = bool | int | float | str | NDArray[np.generic] | StringArray | list["Value"]


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as the header has it; ``shape`` as (N, K), ``offset`` from the start of the data."""

    shape: tuple[int, ...]
    type_number: int
    offset: int


class Header:
    """A parsed header.

    Attributes:
        metadata: Key to value, in the order of the file.
        tensors: Name to entry, in the order of the file.
        end: Offset of the first byte after the header.
    """

    def __init__(self, path: Path, content: NDArray[np.uint8]) -> None:
        """Parse the header of ``content``, the bytes of ``path``.

        Raises:
            CheckpointError: not GGUF, of another version or byte order, truncated, beyond a limit,
                or it breaks a rule of the format.
        """
        self._path = path
        self._bytes = content[:MAX_HEADER_BYTES]
        self._buffer = self._bytes.data
        self._file_bytes = len(content)
        self._where = "header"
        self._text_bytes = 0
        self._arrays = self._strings_in_arrays = 0
        self.end = 0
        self._check_magic()
        num_tensors, num_keys = self._u64(), self._u64()
        self._check_count("tensors", num_tensors, MAX_TENSORS)
        self._check_count("metadata keys", num_keys, MAX_KEYS)
        self.metadata = self._read_metadata(num_keys)
        self.tensors = self._read_tensors(num_tensors)

    def _refuse(self, text: str) -> CheckpointError:
        return CheckpointError(f"{shown(self._where)}: {text} in {self._path}: {MEND}")

    def _check_magic(self) -> None:
        head = self._bytes[:64].tobytes()
        if head[:4] != b"GGUF":
            what, mend = impostor(head) or ("another file", "check the path, or download it again")
            raise CheckpointError(f"{self._path}: expected a GGUF file, got {what}: {mend}")
        self.end = 4
        version = self._u32()
        if version and not version & 0xFFFF:
            raise self._refuse("expected little-endian GGUF, got a big-endian file")
        if version not in VERSIONS:
            raise self._refuse(f"version: expected 2 or 3, got {version}")

    def _check_count(self, what: str, count: int, limit: int) -> None:
        if count > limit:
            raise self._refuse(f"expected at most {limit} {what}, got {count}")

    def _take(self, size: int) -> int:
        """Where the next ``size`` bytes begin, after a check that they are there."""
        at = self.end
        left = len(self._bytes) - at
        if size > left:
            if len(self._bytes) < self._file_bytes:
                raise self._refuse(
                    f"expected a header of at most {MAX_HEADER_BYTES} bytes, got more"
                )
            where = f"{self._path}: {shown(self._where)}"
            raise CheckpointError(
                f"{where}: expected {size} bytes at byte {at}, got {left}, it is truncated or"
                " damaged: download it again"
            )
        self.end = at + size
        return at

    def _u32(self) -> int:
        value: int = _U32.unpack_from(self._buffer, self._take(4))[0]
        return value

    def _u64(self) -> int:
        value: int = _U64.unpack_from(self._buffer, self._take(8))[0]
        return value

    def _string(self, limit: int = MAX_TEXT_BYTES) -> str:
        length = self._u64()
        if length > limit:
            raise self._refuse(f"expected a string of at most {limit} bytes, got {length}")
        self._text_bytes += length
        self._check_count("bytes of strings", self._text_bytes, MAX_TEXT_BYTES)
        at = self._take(length)
        try:
            return str(self._buffer[at : at + length], "utf-8")
        except UnicodeDecodeError as cause:
            raise self._refuse(f"expected UTF-8, got byte {cause.start} that is not") from None

    def _read_metadata(self, count: int) -> Mapping[str, Value]:
        metadata: dict[str, Value] = {}
        for number in range(count):
            self._where = f"metadata key {number}"
            key = self._string()
            self._where = key or self._where
            if not key or key in metadata:
                raise self._refuse(f"expected a new key, got {'it twice' if key else 'none'}")
            metadata[key] = self._value(self._u32())
        return metadata

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(1)
        number = self._numbers(kind, 1)[0].item()
        if kind == _BOOL:
            return bool(number)
        if isinstance(number, float) and not math.isfinite(number):
            raise self._refuse(f"expected a finite number, got {number}")
        value: int | float = number
        return value

    def _numbers(self, kind: int, count: int) -> NDArray[np.generic]:
        if kind not in _NUMBERS:
            raise self._refuse(f"expected a value type from 0 to 12, got {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        at = self._take(count * dtype.itemsize)
        values = self._bytes[at : self.end].view(dtype)
        if kind == _BOOL:
            if count and values.max() > 1:
                raise self._refuse(f"expected true (1) or false (0), got {values.max()}")
            return values.view(np.bool_)
        return values

    def _array(self, depth: int) -> NDArray[np.generic] | StringArray | list[Value]:
        kind, count = self._u32(), self._u64()
        self._arrays += 1
        self._check_count("arrays", self._arrays, MAX_ARRAYS)
        if kind == _STRING:
            return self._strings(count)
        if kind != _ARRAY:
            return self._numbers(kind, count)
        if depth == MAX_NESTING:
            raise self._refuse(f"expected arrays in at most {MAX_NESTING} levels, got more")
        self._check_count("arrays", count, MAX_ARRAYS)
        return [self._array(depth + 1) for _ in range(count)]

    def _strings(self, count: int) -> StringArray:
        if count * 8 > len(self._bytes) - self.end:
            self._take(count * 8)
        self._strings_in_arrays += count
        self._check_count("strings in arrays", self._strings_in_arrays, MAX_STRINGS)
        try:
            begins, end = find_strings(self._bytes, self.end, count)
        except IrregularStringsError as cause:
            raise self._refuse(str(cause)) from None
        if end > len(self._bytes):
            self._take(end - self.end)
        self.end = end
        return StringArray(self._bytes, begins, f"{shown(self._where)} in {self._path}")

    def _read_tensors(self, count: int) -> Mapping[str, TensorEntry]:
        tensors: dict[str, TensorEntry] = {}
        for number in range(count):
            self._where = f"tensor {number}"
            name = self._string(MAX_NAME_BYTES)
            self._where = name or self._where
            if not name or name in tensors:
                raise self._refuse(f"expected a new name, got {'it twice' if name else 'none'}")
            dimensions = self._u32()
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise self._refuse(f"expected 1 to {MAX_DIMENSIONS} dimensions, got {dimensions}")
            fields = struct.Struct(f"<{dimensions}QIQ")
            *lengths, kind, offset = fields.unpack_from(self._buffer, self._take(fields.size))
            if not all(1 <= length < MAX_LENGTH for length in lengths):
                shape = tuple(lengths[::-1])
                raise self._refuse(f"shape: expected lengths from 1 to 2^31 - 1, got {shape}")
            tensors[name] = TensorEntry(tuple(lengths[::-1]), kind, offset)
        return tensors


_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
