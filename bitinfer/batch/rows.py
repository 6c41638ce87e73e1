"""The rows of an input file, and what each of them asks.

A row is an object: a line of OpenAI's batch files, ``{"custom_id", "url", "body": {..}}``, or a
request itself, ``{"prompt": ..}`` or ``{"messages": ..}``, with or without a ``custom_id``.
"""

from __future__ import annotations

import codecs
import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bitinfer.errors import BatchError
from bitinfer.json_file import shown
from bitinfer.serve.limits import MOST_BODY_BYTES

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
URLS = (CHAT, COMPLETIONS, "/v1/responses", "/v1/embeddings")
MOST_LINE_BYTES = MOST_BODY_BYTES + (64 << 10)  # a body, and what stands around it

Line = tuple[int, bytes]  # number in the file, from 1, and JSON


class RowError(Exception):
    """A row that asks nothing that can be answered.

    Attributes:
        custom_id: Its name, if it could be read.
    """

    def __init__(self, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.custom_id = custom_id


class Row(NamedTuple):
    """What a row asks.

    Attributes:
        custom_id: Its name, if it has one.
        url: The route, one of ``URLS``.
        body: The request; not checked.
    """

    custom_id: str | None
    url: str
    body: dict[str, Any]


def read_row(line: bytes) -> Row:
    """Read a row.

    Raises:
        RowError: it is none; the message says why.
    """
    if len(line) > MOST_LINE_BYTES:
        raise RowError(f"row: expected at most {MOST_LINE_BYTES} bytes, got more")
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise RowError(f"row: expected JSON: {str(cause) or 'nested too deeply'}") from None
    if not isinstance(row, dict):
        raise RowError(f"row: expected an object, got {shown(type(row).__name__)}")
    custom_id = row.pop("custom_id", None)
    if not isinstance(custom_id, str | None):
        raise RowError(f"custom_id: expected a text, got {shown(custom_id)}")
    if row.get("method") not in (None, "POST"):
        raise RowError(f"method: expected POST, got {shown(row['method'])}", custom_id)
    body = row.get("body", row)
    if not isinstance(body, dict):
        raise RowError("body: expected an object", custom_id)
    url = row.get("url") or _url_of(body)
    if url is None:
        raise RowError("row: expected prompt, messages, or url and body", custom_id)
    if url not in URLS:
        raise RowError(f"url: expected one of {', '.join(URLS)}, got {shown(url)}", custom_id)
    return Row(custom_id, url, body)


def _url_of(body: Mapping[str, Any]) -> str | None:
    return CHAT if "messages" in body else COMPLETIONS if "prompt" in body else None


def json_lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank; of one that is too long, its beginning.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE_BYTES + 2):
            number += 1
            rest = line
            while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
                continue
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line := line.strip():
                yield number, line


def digest_of(line: bytes) -> int:
    """Bits by which a row is known again: 64, not all of them 0."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little") | 1


class Rows:
    """The rows of an input, read once to count them and check their names.

    Attributes:
        name: Of the input.
        count: How many there are.
        last: Number of the last one.
    """

    def __init__(self, name: str, lines: Callable[[], Iterator[Line]]) -> None:
        """Read all rows of ``lines()``, which gives them anew whenever it is called.

        Raises:
            BatchError: two rows have the same ``custom_id``.
            OSError: the input cannot be read.
        """
        self.name = name
        self._lines = lines
        self._digests = array("Q", [0])
        self.count = 0
        places: dict[str, int] = {}
        for number, line in lines():
            try:
                custom_id = read_row(line).custom_id
            except RowError as error:
                custom_id = error.custom_id
            if custom_id is not None and places.setdefault(custom_id, number) != number:
                raise BatchError(
                    f"{name}, row {number}: custom_id: expected one of its own, got that of row"
                    f" {places[custom_id]}: {shown(custom_id)}"
                )
            self._digests.extend([0] * (number - len(self._digests)))
            self._digests.append(digest_of(line))
            self.count += 1
        self.last = len(self._digests) - 1

    def has(self, number: int, digest: int) -> bool:
        """Whether there is such a row, unchanged."""
        return 0 < number <= self.last and self._digests[number] == digest

    def numbers(self) -> Iterator[int]:
        """The numbers of the rows; blank lines have none."""
        return (number for number, digest in enumerate(self._digests) if digest)

    def __iter__(self) -> Iterator[Line]:
        """The rows once more.

        Raises:
            BatchError: the input has changed meanwhile.
        """
        for number, line in self._lines():
            if not self.has(number, digest_of(line)):
                raise BatchError(f"{self.name}, row {number}: it changed while the batch ran")
            yield number, line
