"""Files of text and of JSON lines that a user brings: read strictly, refused with file and line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitinfer.errors import DataError
from bitinfer.json_file import parse_json_object, shown

BEGIN, END = "<s>", "</s>"  # marks in the text, whatever a tokenizer calls them

_MAX_TEXT_CHARS = 1 << 28  # of what is read as a whole
_BLOCK_BYTES = 1 << 20
_LONGEST_CHARS = 1 << 24  # a longer document becomes several


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it cannot be read, is not UTF-8, empty, or too large.
    """
    blocks, size = [], 0
    for block in _decoded(path):
        blocks.append(block)
        size += len(block)
        if size > _MAX_TEXT_CHARS:
            raise DataError(f"{path}: expected at most {_MAX_TEXT_CHARS} characters, got more")
    if not size:
        raise DataError(f"{path}: expected text, got an empty file")
    return "".join(blocks)


def read_documents(path: Path) -> Iterator[str]:
    """Yield the documents of a text file, without the mark that begins them; none is blank.

    A document stands between ``<s>`` and ``</s>``; a text without these marks is one document.
    ``</s>`` may also stand within one: it ends a chat turn.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or holds no text.
    """
    rest, found = "", False
    for text in _decoded(path):
        *whole, rest = (rest + text).split(BEGIN)
        if len(rest) > _LONGEST_CHARS and (cut := rest.rfind("\n") + 1):
            whole, rest = [*whole, rest[:cut]], rest[cut:]
        for document in filter(_says_something, whole):
            found = True
            yield document.rstrip()
    if _says_something(rest):
        yield rest.rstrip()
    elif not found:
        raise DataError(f"{path}: expected text, got an empty file")


def _says_something(document: str) -> bool:
    return bool(document.replace(END, "").strip())


def _decoded(path: Path) -> Iterator[str]:
    """Yield a file's text block by block."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, begun = 0, False
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                pending = len(decoder.getstate()[0])
                text = decoder.decode(block)
                read, pending = read + len(block), 0
                yield text if begun else text.removeprefix("\ufeff")
                begun = begun or bool(text)
            pending = len(decoder.getstate()[0])
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as cause:
        at = read - pending + cause.start
        raise DataError(
            f"{path}: expected UTF-8 text, got byte 0x{cause.object[cause.start]:02x} at {at}:"
            " convert the file"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{path}: file not found") from None
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror}") from None


@dataclass(frozen=True)
class JsonLine:
    """A JSON object of a line.

    Attributes:
        values: The object.
        where: File and line, for messages.
    """

    values: dict[str, Any]
    where: str

    def error(self, key: str, expected: str) -> DataError:
        """What to raise of the value of a key."""
        got = shown(repr(self.values[key]))
        return DataError(f'{self.where}: "{key}": expected {expected}, got {got}')

    def value(self, key: str) -> Any:
        """What stands under a key.

        Raises:
            DataError: there is no such key.
        """
        if key not in self.values:
            keys = ", ".join(f'"{shown(name)}"' for name in self.values) or "none"
            raise DataError(f'{self.where}: expected the key "{key}", got {shown(keys)}')
        return self.values[key]

    def text(self, key: str) -> str:
        """A text.

        Raises:
            DataError: there is none.
        """
        value = self.value(key)
        if not isinstance(value, str):
            raise self.error(key, "a text")
        return value


def read_json_lines(path: Path) -> Iterator[JsonLine]:
    """The objects of a JSONL file; blank lines count as lines.

    Raises:
        DataError: as of `read_text`, there is no object, or a line is no strict JSON object.
    """
    found = False
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            found = True
            where = f"{path}, line {number}"
            yield JsonLine(parse_json_object(line.encode(), where, DataError), where)
    if not found:
        raise DataError(f"{path}: expected a JSON object in each line, got blank lines")
