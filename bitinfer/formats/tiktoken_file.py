"""tiktoken files: a line for each token, its bytes in base64 and its rank. Llama 3's, to be exact.

Such a file states neither how text is split nor its control tokens, so only a known one is read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from bitinfer.errors import TokenizerError
from bitinfer.formats.byte_level import (
    LLAMA3,
    WordSplit,
    byte_alphabet,
    byte_level_tokenizer,
    merges_by_rank,
    put_bos_first,
)
from bitinfer.formats.vocabulary_file import read_vocabulary
from bitinfer.json_file import shown

_MAX_BYTES = 4 << 20  # Llama 3's file has 2.2 MB
_LLAMA3_RANKS = 128000
_LLAMA3_NAMED = {  # offset behind the ranks -> control token; the others are reserved
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}
_LLAMA3_CONTROL = 256


def is_tiktoken(path: Path) -> bool:
    """Whether a file looks like one of ranks, not like SentencePiece's of the same name."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return head.isascii() and b"\0" not in head


def read_tiktoken(path: Path) -> Tokenizer:
    """Read Llama 3's ranks, which begin texts with BOS.

    Raises:
        TokenizerError: the file is missing, damaged, or not Llama 3's.
    """
    ranks = read_ranks(path)
    if len(ranks) != _LLAMA3_RANKS:
        raise TokenizerError(
            f"{_where(path)}: expected {_LLAMA3_RANKS} ranks (Llama 3's), got {len(ranks)}: "
            "take the model's tokenizer.json"
        )
    reserved = iter(range(_LLAMA3_CONTROL))
    names = (_LLAMA3_NAMED.get(i) for i in range(_LLAMA3_CONTROL))
    control = [name or f"<|reserved_special_token_{next(reserved)}|>" for name in names]
    backend = tokenizer_from_ranks(ranks, LLAMA3, control)
    put_bos_first(backend, len(ranks), control[0])
    return backend


def read_ranks(path: Path) -> list[bytes]:
    """Tokens of a tiktoken file in the order of their ranks, which count from 0.

    Raises:
        TokenizerError: the file is missing, unreadable, too large, or a line is not as it must be.
    """
    where = _where(path)
    data = read_vocabulary(path, _MAX_BYTES, "tiktoken ranks", where)
    if not data.isascii():
        raise TokenizerError(
            f"{where}: expected tiktoken ranks, got bytes that are no text: "
            "take the model's tokenizer.json"
        )
    tokens: dict[bytes, int] = {}
    for rank, line in enumerate(data.splitlines()):
        token = _token_of(line, rank, where)
        if token in tokens:
            raise TokenizerError(
                f"{where}: expected every token once, got rank {rank} with that of {tokens[token]}"
            )
        tokens[token] = rank
    missing = next((byte for byte in range(256) if bytes([byte]) not in tokens), None)
    if missing is not None:
        raise TokenizerError(f"{where}: expected a rank for each byte, got none for {missing}")
    return list(tokens)


def tokenizer_from_ranks(
    ranks: Sequence[bytes], split: WordSplit, control: Sequence[str]
) -> Tokenizer:
    """A byte-level tokenizer in which the lowest rank is merged first.

    Args:
        ranks: Bytes of each token; all 256 single bytes are among them.
        split: How text is cut into words.
        control: Control tokens; their ids follow the ranks.
    """
    alphabet = byte_alphabet()
    vocab = {t.decode("latin-1").translate(alphabet): rank for rank, t in enumerate(ranks)}
    backend = byte_level_tokenizer(vocab, merges_by_rank(vocab), split)
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    return backend


def _token_of(line: bytes, rank: int, where: str) -> bytes:
    """The token in a line that must state ``rank``."""
    text, _, number = line.partition(b" ")
    try:
        token = base64.b64decode(text, validate=True)
    except binascii.Error:
        token = b""
    if not token or number != b"%d" % rank:
        got = shown(line.decode("ascii"), 40)
        raise TokenizerError(
            f"{where}: expected a token in base64 and its rank {rank} in line {rank + 1}, "
            f"got {got!r}: download it again"
        )
    return token


def _where(path: Path) -> str:
    return f"{path.name} in {path.parent}"
