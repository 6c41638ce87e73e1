"""Arrays of strings in a GGUF header: found without a Python step for each, decoded on demand.

A string is a u64 length and its bytes, so each begins where the one before it ends. In a vocabulary
nearly all are shorter than 256 bytes and hold no zero byte, so a length is what seven zero bytes
follow: all such places of a window are found at once, and it is then checked that they are a chain.
Where the chain breaks, a stretch is walked string by string; there is a limit to that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError

MAX_WALKED = 1 << 15  # strings: some 30 ms
_STRETCH = 256  # strings
_WINDOW = 1 << 15  # bytes
_U64 = struct.Struct("<Q")


class IrregularStringsError(ValueError):
    """More than ``MAX_WALKED`` strings that are empty, longer than 255 bytes or hold zeros."""


class StringArray(Sequence[str]):
    """Strings of the file, decoded when they are asked for."""

    def __init__(self, content: NDArray[np.uint8], begins: NDArray[np.int64], where: str) -> None:
        """Strings of ``content`` whose lengths lie at ``begins``; ``where`` is for messages."""
        self._content = content.data
        self._begins = begins
        self._where = where

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """A string, or a list of them.

        Raises:
            CheckpointError: it is not UTF-8.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = int(self._begins[index])
        (length,) = _U64.unpack_from(self._content, at)
        try:
            return str(self._content[at + 8 : at + 8 + length], "utf-8")
        except UnicodeDecodeError as cause:
            raise CheckpointError(
                f"string {index} of {self._where}: expected UTF-8, got byte {cause.start} that is"
                " not"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


def find_strings(content: NDArray[np.uint8], at: int, count: int) -> tuple[NDArray[np.int64], int]:
    """Find ``count`` strings that follow each other in ``content`` from ``at``.

    Returns:
        Where the length of each lies (int64), and where the last one ends. An end beyond
        ``content`` says that a string does not fit; the places are then of no use.

    Raises:
        IrregularStringsError: too many of them are of the slow kind.
    """
    begins = np.empty(count, np.int64)
    buffer = content.data
    done = walked = 0
    while done < count and at + 8 <= len(content):
        found, next_at = _chain(content, at, count - done)
        begins[done : done + len(found)] = found
        done, at = done + len(found), next_at
        for _ in range(min(_STRETCH, count - done) if len(found) < _STRETCH else 0):
            if at + 8 > len(content):
                break
            begins[done] = at
            at += 8 + _U64.unpack_from(buffer, at)[0]
            done, walked = done + 1, walked + 1
        if walked > MAX_WALKED:
            raise IrregularStringsError(
                f"expected at most {MAX_WALKED} strings that are empty, longer than 255 bytes or"
                " hold zero bytes, got more"
            )
    return begins, at if done == count else max(at, len(content) + 1)


def _chain(content: NDArray[np.uint8], at: int, limit: int) -> tuple[NDArray[np.int64], int]:
    """The strings, at most ``limit``, that one window from ``at`` shows, and where they end."""
    window = content[at : at + _WINDOW]
    zeros = window == 0
    zeros = zeros[:-1] & zeros[1:]  # two in a row,
    zeros = zeros[:-2] & zeros[2:]  # four,
    zeros = zeros[:-3] & zeros[3:]  # seven
    places = np.flatnonzero(zeros[1:])[:limit]
    ends = places + 8 + window[places]
    if not len(places) or places[0] != 0:
        return places[:0] + at, at
    breaks = np.flatnonzero(ends[:-1] != places[1:])
    length = breaks[0] + 1 if len(breaks) else len(places)
    return places[:length] + at, at + int(ends[length - 1])
