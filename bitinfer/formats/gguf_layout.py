"""Where the tensors of a GGUF file lie, and of which type each is.

The data begin after the header, at a multiple of ``general.alignment``; so does each tensor. Its
span goes to the next one, which tells apart the types that share a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitinfer.errors import CheckpointError
from bitinfer.formats.gguf_header import MEND, Header, TensorEntry
from bitinfer.formats.gguf_types import TYPES, GgmlType
from bitinfer.formats.safetensors import describe_shape
from bitinfer.json_file import shown

ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
_ALIGNMENTS = tuple(1 << bit for bit in range(3, 17))


@dataclass(frozen=True)
class GgufTensor:
    """A tensor: its type, shape (N, K), and bytes ``begin`` to ``end`` of the file."""

    type: GgmlType
    shape: tuple[int, ...]
    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.type.name} {describe_shape(self.shape)}"


def place_tensors(header: Header, file_bytes: int, path: Path) -> Mapping[str, GgufTensor]:
    """Give each tensor of ``header`` its type and bytes, in the order of the header.

    Raises:
        CheckpointError: a tensor leaves the file or overlaps another, breaks the alignment, or is
            of a type that is not known or cannot be told from another.
    """
    return _Layout(header, file_bytes, path).tensors


class _Layout:
    def __init__(self, header: Header, file_bytes: int, path: Path) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._entries = header.tensors
        self._alignment = self._read_alignment(header)
        self._data_start = self._aligned(header.end)
        self._spans = self._find_spans()
        types = self._tell_types()
        self.tensors = {
            name: self._place(name, entry, types[entry.type_number])
            for name, entry in self._entries.items()
        }

    def _refuse(self, what: str, text: str) -> CheckpointError:
        return CheckpointError(f"{shown(what)}: {text} in {self._path}: {MEND}")

    def _aligned(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment

    def _read_alignment(self, header: Header) -> int:
        alignment = header.metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment not in _ALIGNMENTS:
            text = f"expected a power of two from 8 to {_ALIGNMENTS[-1]}, got {shown(alignment)}"
            raise self._refuse(ALIGNMENT_KEY, text)
        return alignment

    def _find_spans(self) -> Mapping[str, int]:
        """Name to bytes until the next tensor, or until the end of the file."""
        offsets = sorted(entry.offset for entry in self._entries.values())
        ends = [*offsets[1:], self._file_bytes - self._data_start]
        # Backwards, so that the first of tensors at one offset decides: a span of 0 bytes.
        end_of = dict(zip(reversed(offsets), reversed(ends), strict=False))
        return {name: end_of[entry.offset] - entry.offset for name, entry in self._entries.items()}

    def _place(self, name: str, entry: TensorEntry, kind: GgmlType) -> GgufTensor:
        if entry.offset % self._alignment:
            text = f"offset: expected a multiple of {self._alignment}, got {entry.offset}"
            raise self._refuse(name, text)
        size = kind.size(entry.shape)
        if size is None:
            text = f"expected a shape that {kind.name} can have, got"
            raise self._refuse(name, f"{text} {describe_shape(entry.shape)}")
        begin = self._data_start + entry.offset
        if begin + size > self._file_bytes:
            raise CheckpointError(
                f"{self._path}: {shown(name)}: expected a file of {begin + size} bytes or more, got"
                f" {self._file_bytes}, it is truncated: download it again"
            )
        if size > self._spans[name]:
            text = f"expected {size} bytes of its own from byte {begin}, got an overlap"
            raise self._refuse(name, text)
        return GgufTensor(kind, entry.shape, begin, begin + size)

    def _tell_types(self) -> Mapping[int, GgmlType]:
        """What each type number of the file means: the one type that fills all its spans."""
        types: dict[int, tuple[GgmlType, ...]] = {}
        for name, entry in self._entries.items():
            number = entry.type_number
            if number not in TYPES:
                raise self._refuse(name, f"expected a known tensor type, got number {number}")
            candidates = types.get(number, TYPES[number])
            if len(TYPES[number]) > 1:
                candidates = tuple(kind for kind in candidates if self._fills(name, entry, kind))
            if not candidates:
                names = " or ".join(kind.name for kind in TYPES[number])
                text = f"expected as many bytes as {names} takes, got {self._spans[name]} for"
                raise self._refuse(name, f"type {number}: {text} {describe_shape(entry.shape)}")
            types[number] = candidates
        for number, candidates in types.items():
            if len(candidates) > 1:
                names = " or ".join(kind.name for kind in candidates)
                raise CheckpointError(
                    f"{self._path}: tensor type {number}: its tensors take as many bytes as {names}"
                    " would, so it cannot be told which they are: use another file of this model"
                )
        return {number: candidates[0] for number, candidates in types.items()}

    def _fills(self, name: str, entry: TensorEntry, kind: GgmlType) -> bool:
        """Whether a tensor takes just the bytes of ``kind``, with or without padding at its end."""
        size = kind.size(entry.shape)
        return size is not None and self._spans[name] in (size, self._aligned(size))
