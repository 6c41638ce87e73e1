"""``Journal``: the results so far, in a file beside the output, as they came.

A process may be killed whenever it likes: what a journal holds is its longest beginning of whole
lines. Its first line says what the results depend on besides their rows.
"""

from __future__ import annotations

import fcntl
import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

from bitinfer.batch.results import Result, read_result
from bitinfer.batch.rows import Rows
from bitinfer.errors import BatchError

_FORMAT = {"format": "bitinfer-batch", "version": 1}


class Journal:
    """Opened by one process at a time.

    Attributes:
        path: Of the file.
        done: Rows that have a result.
        failed: How many of these are errors.
    """

    def __init__(self, path: Path, rows: Rows, settings: Mapping[str, str]) -> None:
        """Begin a journal, or go on with the one that is there; a half-written end is cut off.

        Args:
            path: Of the file.
            rows: What is answered.
            settings: What results depend on: name to value.

        Raises:
            BatchError: another process has it open, or it is of other rows or settings.
            OSError: it cannot be read or written.
        """
        self.path = path
        self.done = self.failed = 0
        self._rows = rows
        self._places = array("Q", bytes(8 * (rows.last + 1)))  # 0: no result
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self._resume({**_FORMAT, **settings})
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, number: int) -> bool:
        """Whether a row has a result."""
        return self._places[number] > 0

    def add(self, line: bytes) -> Result:
        """Keep a row's line; it is in the hands of the system when this returns.

        Raises:
            OSError: the disk is full.
        """
        place = self._end
        self._write(line)
        result = self._note(line, place)
        assert result is not None
        return result

    def in_order(self) -> Iterator[bytes]:
        """The lines, by the numbers of their rows."""
        with self.path.open("rb") as file:
            for place in self._places:
                if place:
                    file.seek(place)
                    yield file.readline()

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def remove(self) -> None:
        """Remove the file, and close it."""
        self.path.unlink()
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(f"{self.path}: another process writes it: wait for its end") from None

    def _resume(self, header: Mapping[str, object]) -> None:
        """Read what is there, cut off what is not whole, and write the header of a new one."""
        self._file.seek(0)
        self._end = 0
        with self.path.open("rb") as file:
            first = file.readline()
            if first.endswith(b"\n"):
                self._check(first, header)
                self._end = len(first)
            for line in file if self._end else ():
                if not line.endswith(b"\n") or self._note(line, self._end) is None:
                    break
                self._end += len(line)
        self._file.truncate(self._end)
        if not self._end:
            self._write(json.dumps(header).encode())

    def _check(self, line: bytes, header: Mapping[str, object]) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != _FORMAT["format"]:
            raise BatchError(f"{self.path}: expected a batch that was cut off: remove the file")
        for name, value in header.items():
            if found.get(name) != value:
                raise BatchError(
                    f"{self.path}: begun with another {name}: expected {found.get(name)}, got"
                    f" {value}: take that, or remove the file to begin anew"
                )

    def _note(self, line: bytes, place: int) -> Result | None:
        """Count a result; None if it is none."""
        result = read_result(line)
        if result is None:
            return None
        if not self._rows.has(result.number, result.digest):
            raise BatchError(
                f"{self._rows.name}, row {result.number}: it changed since it was answered: remove"
                f" {self.path} to begin anew"
            )
        if result.number not in self:
            self._places[result.number] = place
            self.done += 1
            self.failed += result.failed
        return result

    def _write(self, line: bytes) -> None:
        rest = memoryview(line + b"\n")
        self._end += len(rest)
        while rest:
            rest = rest[self._file.write(rest) :]
