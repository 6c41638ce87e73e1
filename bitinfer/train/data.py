"""Text files -> tokens in files -> rows of a training batch, as a function of the seed alone.

The marks of documents (`text_file`) become the tokenizer's own BOS and EOS.

Tokens are kept as little-endian uint16 or uint32, one file for a text file, and beside it the ends
of the documents (int64). Nothing here knows torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitinfer.errors import TrainingError
from bitinfer.formats.new_file import new_file
from bitinfer.text_file import END, read_documents

IGNORED = -100  # in a row: no token to learn (the label that torch's cross entropy leaves out)

_ENCODED_TOGETHER = 1024  # documents; the tokenizer spreads them over the cores


def parse_source(text: str) -> tuple[Path, int]:
    """``FILE`` or ``FILE:COUNT``: a text file, and how often each of its documents counts.

    Raises:
        TrainingError: the count is 0.
    """
    name, colon, count = text.rpartition(":")
    if not colon or not (count.isascii() and count.isdecimal()):
        return Path(text), 1
    if int(count) == 0:
        raise TrainingError(f"{text}: expected a count from 1 up after the colon, got {count}")
    return Path(name), int(count)


@dataclass(frozen=True)
class TokenFile:
    """Tokens of one text file.

    Attributes:
        tokens: uint16 or uint32 (count,), mapped.
        ends: int64 (documents,): where each document ends in ``tokens``.
    """

    tokens: NDArray[Any]
    ends: NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Map what `write_tokens` wrote.

        Raises:
            TrainingError: it is damaged.
        """
        dtype = np.dtype("<u4" if path.suffix == ".u32" else "<u2")
        try:
            tokens = np.memmap(path, dtype=dtype, mode="r")
            ends = np.fromfile(_ends_of(path), dtype="<i8")
        except (OSError, ValueError) as cause:
            raise TrainingError(f"{path}: cannot be read: {cause}") from None
        if not len(ends) or ends[-1] != len(tokens) or (np.diff(ends, prepend=0) <= 0).any():
            raise TrainingError(
                f"{path}: expected the tokens of {len(ends)} documents, got {len(tokens)} tokens"
                " that do not fit: remove the file, and the text is read again"
            )
        return cls(tokens, ends)


def _ends_of(path: Path) -> Path:
    return path.with_suffix(".ends")


def token_path(folder: Path, name: str, vocab_size: int) -> Path:
    """Where the tokens of a text are kept; the suffix is their type."""
    return folder / f"{name}.{'u16' if vocab_size <= 1 << 16 else 'u32'}"


def write_tokens(
    source: Path, target: Path, tokenizer: Tokenizer, bos: int | None, eos: int
) -> None:
    """Write the tokens of a text file, unless they are there.

    Args:
        source: The text.
        target: A `token_path`; the ends of its documents are written beside it, before it.
        tokenizer: Splits the text; what it would put around a text is left out.
        bos, eos: Stand for the marks; without a BOS nothing stands for the first.

    Raises:
        DataError: see `read_documents`.
        TrainingError: the disk is full.
    """
    if target.exists() and _ends_of(target).exists():
        return
    dtype = np.dtype("<u4" if target.suffix == ".u32" else "<u2")
    documents, end = read_documents(source), 0
    try:
        with new_file(target) as tokens, new_file(_ends_of(target)) as ends:
            while batch := list(islice(documents, _ENCODED_TOGETHER)):
                encoded = encode_documents(batch, tokenizer, bos, eos)
                tokens.write(np.concatenate(encoded).astype(dtype).tobytes())
                lengths = np.array([len(ids) for ids in encoded])
                ends.write((end + np.cumsum(lengths)).astype("<i8").tobytes())
                end += int(lengths.sum())
    except OSError as cause:
        raise TrainingError(f"{target}: cannot be written: {cause.strerror}") from None


def encode_documents(
    documents: Sequence[str], tokenizer: Tokenizer, bos: int | None, eos: int
) -> list[NDArray[np.int64]]:
    """Token ids of each document: BOS, its text with ``eos`` for each end mark, EOS."""
    turns = [document.removesuffix(END).split(END) for document in documents]
    texts = [turn for document in turns for turn in document]
    encodings = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    found = []
    for document in turns:
        ids = [] if bos is None else [bos]
        for encoding in islice(encodings, len(document)):
            ids += [*encoding.ids, eos]
        found.append(np.array(ids, dtype=np.int64))
    return found


class PackedRows:
    """Rows of ``context_length + 1`` tokens out of an endless stream of documents.

    The stream is one shuffled pass over all documents after another. Row r holds its tokens from
    ``r * context_length`` on, and the first token of the next row: each token but the very first
    is learned exactly once in a pass, and none is padding.
    """

    def __init__(
        self, files: Sequence[tuple[TokenFile, int]], context_length: int, seed: int
    ) -> None:
        """Take token files, each with how often its documents count."""
        self._tokens = [file.tokens for file, _ in files]
        self.context_length, self._seed = context_length, seed
        which, starts, lengths = [], [], []
        for index, (file, count) in enumerate(files):
            length = np.diff(file.ends, prepend=0)
            which.append(np.full(len(length) * count, index))
            starts.append(np.tile(file.ends - length, count))
            lengths.append(np.tile(length, count))
        self._file, self._start = np.concatenate(which), np.concatenate(starts)
        self._length = np.concatenate(lengths)
        self.tokens_in_pass = int(self._length.sum())
        self._pass: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows ``first`` up to ``first + count``: int64 (count, context_length + 1), fresh."""
        begin = first * self.context_length
        stream = self._read(begin, count * self.context_length + 1)
        at = np.arange(count)[:, None] * self.context_length
        return stream[at + np.arange(self.context_length + 1)]

    def _read(self, position: int, count: int) -> NDArray[np.int64]:
        """``count`` tokens of the stream from ``position`` on."""
        parts = []
        while count > 0:
            number, offset = divmod(position, self.tokens_in_pass)
            order, ends = self._order(number)
            at = int(np.searchsorted(ends, offset, side="right"))
            document = order[at]
            left = int(ends[at]) - offset
            start = int(self._start[document] + self._length[document]) - left
            part = self._tokens[self._file[document]][start : start + min(left, count)]
            parts.append(part.astype(np.int64))
            position, count = position + len(part), count - len(part)
        return np.concatenate(parts)

    def _order(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Documents of a pass in their order, and where each ends in it.

        Sorted by raw numbers of a bit generator: those NumPy keeps, its ``permutation`` it may not.
        """
        if self._pass is None or self._pass[0] != number:
            keys = np.random.PCG64([self._seed, number]).random_raw(len(self._length))
            order = np.argsort(keys, kind="stable")
            self._pass = (number, order, np.cumsum(self._length[order]))
        return self._pass[1], self._pass[2]


def validation_rows(file: TokenFile, context_length: int) -> NDArray[np.int64]:
    """All tokens in their order, as rows: int64 (rows, context_length + 1); IGNORED fills the last.

    As in `PackedRows` each row ends with the token that the next one begins with.
    """
    rows = max(1, -(-(len(file.tokens) - 1) // context_length))
    padded = np.full(rows * context_length + 1, IGNORED, dtype=np.int64)
    padded[: len(file.tokens)] = file.tokens
    at = np.arange(rows)[:, None] * context_length
    return padded[at + np.arange(context_length + 1)]
