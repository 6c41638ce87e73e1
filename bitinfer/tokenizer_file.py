"""A model folder's tokenizer as an object of the `tokenizers` library, and what lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bitinfer.errors import TokenizerError
from bitinfer.formats.sentencepiece_file import read_sentence_piece
from bitinfer.formats.tiktoken_file import is_tiktoken, read_tiktoken
from bitinfer.json_file import impostor


def tokenizer_file(folder: Path) -> Path | None:
    """The file of a model folder that holds the tokenizer, or None."""
    files = (folder / "tokenizer.json", folder / "tokenizer.model")
    return next((file for file in files if file.exists()), None)


def read_tokenizer(path: Path, where: str) -> Tokenizer:
    """Read tokenizer.json, or tokenizer.model of either kind.

    Args:
        path: The file.
        where: Its name, for messages.

    Raises:
        TokenizerError: it is missing or damaged.
    """
    if path.suffix == ".json":
        return _read_json(path, where)
    return (read_tiktoken if is_tiktoken(path) else read_sentence_piece)(path)


def token_text(value: object) -> str:
    """Text of a token in tokenizer_config.json: a string or {"content": ...}; else ""."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def listed_ids(value: object) -> list[int]:
    """An id or a list of ids, as config files have them; None is no id.

    Raises:
        TokenizerError: anything else.
    """
    ids: list[Any] = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise TokenizerError(
            f"eos_token_id: expected a token id or a list of them, got {value!r} "
            "in generation_config.json"
        )
    return ids


def _read_json(path: Path, where: str) -> Tokenizer:
    """Parse tokenizer.json, naming what stands there instead."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TokenizerError(
            f"{where}: file not found: the model needs one, copy it from the original repository"
        ) from None
    except OSError as cause:
        raise TokenizerError(f"{where}: cannot be read: {cause.strerror}") from None
    if not data.strip():
        raise TokenizerError(f"{where}: expected JSON, got an empty file: download it again")
    if (found := impostor(data[:64])) is not None:
        raise TokenizerError(f"{where}: expected JSON, got {found[0]}: {found[1]}")
    try:
        return Tokenizer.from_buffer(data)
    except BaseException as cause:  # a panic of the library derives from BaseException
        if isinstance(cause, KeyboardInterrupt | SystemExit):
            raise
        reason = " ".join(str(cause).split())[:200]
        raise TokenizerError(
            f"{where}: expected a tokenizer, got text that is none ({reason}): download it again"
        ) from None
