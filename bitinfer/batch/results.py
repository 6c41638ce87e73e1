"""Lines of the output, in the form of OpenAI's batch files: written, and read again."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct


class Answer(Struct):
    """What the server would have sent."""

    status_code: int
    request_id: str
    body: Raw


class Fault(Struct):
    """Why a row was not even asked."""

    code: str
    message: str


class _Line(Struct):
    id: str
    custom_id: str | None = None
    response: Answer | None = None
    error: Fault | None = None


class _Usage(Struct):
    completion_tokens: int = 0  # of chat and completions
    output_tokens: int = 0  # of responses


class _Counted(Struct):
    usage: _Usage | None = None


class Result(NamedTuple):
    """What a line of the output tells of itself.

    Attributes:
        number: Of its row.
        digest: Of its row.
        failed: Whether it is an error.
        tokens: Tokens generated.
    """

    number: int
    digest: int
    failed: bool
    tokens: int


_ID = re.compile(r"batch_req_(\d{1,15})_([0-9a-f]{16})")


def write_result(
    number: int, digest: int, custom_id: str | None, response: Answer | None, error: Fault | None
) -> bytes:
    """The line of a row's answer; its id names the row."""
    line = _Line(f"batch_req_{number}_{digest:016x}", custom_id, response, error)
    return msgspec.json.encode(line)


def read_result(line: bytes) -> Result | None:
    """What a line of an output tells; None if it is not whole, or no such line."""
    try:
        found = msgspec.json.decode(line, type=_Line)
        named = _ID.fullmatch(found.id)
        if named is None:
            return None
        failed, tokens = True, 0
        if (response := found.response) is not None and response.status_code == 200:
            usage = msgspec.json.decode(response.body, type=_Counted).usage or _Usage()
            failed, tokens = False, usage.completion_tokens + usage.output_tokens
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Result(int(named[1]), int(named[2], 16), failed, tokens)


def columns_of(line: bytes) -> dict[str, str | None]:
    """A line for a table: its fields, those that are objects as JSON texts."""
    found = msgspec.json.decode(line, type=dict[str, Raw])
    texts = {name: bytes(value).decode() for name, value in found.items()}
    columns = {name: None if text == "null" else text for name, text in texts.items()}
    for name in ("id", "custom_id"):
        columns[name] = msgspec.json.decode(found[name])
    return columns
