"""The bytes of a vocabulary in a file of its own: SentencePiece's model, tiktoken's ranks."""

from __future__ import annotations

from pathlib import Path

from bitinfer.errors import TokenizerError
from bitinfer.json_file import impostor


def read_vocabulary(path: Path, most_bytes: int, what: str, where: str) -> bytes:
    """The whole file.

    Args:
        path: The file.
        most_bytes: No vocabulary is larger.
        what: What it should be, for messages.
        where: Its name, for messages.

    Raises:
        TokenizerError: it cannot be read, is too large, or is plainly something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as cause:
        raise TokenizerError(f"{where}: cannot be read: {cause.strerror}") from None
    if len(content) > most_bytes:
        raise TokenizerError(f"{where}: expected at most {most_bytes} bytes of {what}, got more")
    if (found := impostor(content[:64])) is not None:
        raise TokenizerError(f"{where}: expected {what}, got {found[0]}: {found[1]}")
    return content
