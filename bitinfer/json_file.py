"""Strict JSON objects from files and headers: no duplicate keys, no NaN, bounded size and depth."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from bitinfer.errors import BitinferError

MAX_JSON_BYTES = 64 << 20  # config and index files are far below; a tokenizer is read elsewhere

# First bytes of files that often stand where another was expected -> (what it is, what to do).
_IMPOSTORS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer", "run 'git lfs pull' to fetch the real file"),
    (b"<!doctype", "an HTML page", "a login or error page was saved: download the file again"),
    (b"<html", "an HTML page", "a login or error page was saved: download the file again"),
    (b"<?xml", "an XML page", "an error page was saved: download the file again"),
    (b"gguf", "a GGUF file", "name it .gguf and give its path as the model"),
    (b"pk\x03\x04", "a zip or PyTorch archive", "use the model's safetensors checkpoint"),
    (b"\x80\x02", "a PyTorch pickle", "use the model's safetensors checkpoint"),
)


def impostor(head: bytes) -> tuple[str, str] | None:
    """What a file beginning with ``head`` (64 bytes suffice) is instead, and the mend; or None."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:32].lower()
    for magic, what, mend in _IMPOSTORS:
        if start.startswith(magic):
            return what, mend
    return None


def parse_json_object(text: bytes, where: str, error: type[BitinferError]) -> dict[str, Any]:
    """Parse a JSON object strictly.

    Args:
        text: UTF-8 JSON.
        where: What the text is, for messages (a file name, or a part of it).
        error: Class of the error to raise.

    Raises:
        BitinferError: of class ``error``: not UTF-8, not JSON, not an object, a key that stands
            twice, NaN or infinity, or nested too deeply.
    """
    value = _parse(text, where, error)
    if not isinstance(value, dict):
        raise error(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def _parse(text: bytes, where: str, error: type[BitinferError]) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise ValueError(f'the key "{shown(twice)}" stands twice')
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except UnicodeDecodeError as cause:
        raise error(f"{where}: expected UTF-8 JSON, got byte {cause.start} that is not") from None
    except RecursionError:
        raise error(f"{where}: expected a JSON object, got one nested too deeply") from None
    except ValueError as cause:
        raise error(f"{where}: expected a JSON object, got text that is not: {cause}") from None


def read_json_object(path: Path, error: type[BitinferError]) -> dict[str, Any]:
    """Read a JSON object strictly from a file of at most ``MAX_JSON_BYTES``.

    Raises:
        BitinferError: of class ``error``: the file is missing, a directory, unreadable, empty, too
            large, a Git LFS pointer or an HTML page, or not a strict JSON object.
    """
    where = f"{path.name} in {path.parent}"
    return parse_json_object(_read(path, where, error), where, error)


def read_json_array(path: Path, error: type[BitinferError]) -> list[Any]:
    """Read a JSON array as ``read_json_object`` reads an object."""
    where = f"{path.name} in {path.parent}"
    value = _parse(_read(path, where, error), where, error)
    if not isinstance(value, list):
        raise error(f"{where}: expected a JSON array, got {type(value).__name__}")
    return value


def _read(path: Path, where: str, error: type[BitinferError]) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise error(f"{where}: file not found: a model folder needs it, download it too") from None
    except IsADirectoryError:
        raise error(f"{where}: expected a file, got a directory") from None
    except OSError as cause:
        raise error(f"{where}: cannot be read: {cause.strerror}") from None
    if len(text) > MAX_JSON_BYTES:
        raise error(f"{where}: expected at most {MAX_JSON_BYTES} bytes of JSON, got more")
    if not text.strip():
        raise error(f"{where}: expected a JSON object, got an empty file: download it again")
    if (found := impostor(text[:64])) is not None:
        raise error(f"{where}: expected a JSON object, got {found[0]}: {found[1]}")
    return text


def shown(text: object, limit: int = 80) -> str:
    """``text`` from a file made fit for a one-line message: printable, at most ``limit`` long."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
