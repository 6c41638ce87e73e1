"""Perplexity of a text, read through a sliding window."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bitinfer.errors import DataError, TokenizerError
from bitinfer.evaluate.scoring import Progress, Span, score
from bitinfer.model import Model
from bitinfer.text_file import END
from bitinfer.tokenizer import Tokenizer

LARGEST_WINDOW = 2048  # where none is given and the context holds more


@dataclass(frozen=True)
class Perplexity:
    """How well a model reads a text.

    Attributes:
        nats: Sum of ``-log p`` of all tokens.
        tokens: How many; each was scored once.
        bytes: Of the text in UTF-8, without control tokens.
        texts: How many were read, each from its beginning.
        window, stride: Tokens that the model read at once, and that it went on by.
    """

    nats: float
    tokens: int
    bytes: int
    texts: int
    window: int
    stride: int

    @property
    def nats_per_token(self) -> float:
        """The mean loss."""
        return self.nats / self.tokens

    @property
    def nats_per_byte(self) -> float:
        """What models with other vocabularies can be compared by."""
        return self.nats / self.bytes

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean loss; infinite where no float holds it."""
        return _exp(self.nats_per_token)

    @property
    def byte_perplexity(self) -> float:
        """``exp`` of the loss per byte."""
        return _exp(self.nats_per_byte)


def perplexity(
    model: Model,
    text: str,
    *,
    window: int | None = None,
    stride: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Perplexity:
    """Measure how well ``model`` reads ``text``.

    Each token is scored once, given at least ``window - stride + 1`` tokens before it, unless the
    text begins there.

    Args:
        model: The model.
        text: At least one character; "<s>" and the like are plain text in it.
        window: Tokens that the model reads at once; None: its context, at most 2,048.
        stride: Tokens by which the window moves, at most ``window``; None: half of it.
        progress: Called with how many tokens are done, and how many there are.

    Raises:
        DataError: the text is empty.
        TokenizerError: the model has no tokenizer, or no token that can open a text.
        ValueError: ``window`` or ``stride`` is out of range.
    """
    tokenizer = model.tokenizer
    ids = [opening_id(tokenizer), *tokenizer.encode(text)]
    return _measure(model, [ids], len(text.encode()), window, stride, progress)


def document_perplexity(
    model: Model,
    documents: Sequence[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Perplexity:
    """The same of documents, each of which is read alone and ends with EOS, as in training.

    Args:
        model: The model.
        documents: As `text_file.read_documents` gives them: "</s>" stands for EOS whatever the
            model calls it, and the model's other control tokens count too. Bytes are counted
            without them.
        window, stride, progress: As in `perplexity`.

    Raises:
        As in `perplexity`.
    """
    tokenizer, end = model.tokenizer, model.tokenizer.eos_token
    opening = opening_id(tokenizer)
    control = re.compile("|".join(map(re.escape, [*tokenizer.control_tokens, END])))
    streams = []
    for document in documents:
        text = document.removesuffix(END).replace(END, end) + end
        streams.append([opening, *tokenizer.encode(text, parse_special=True)])
    num_bytes = sum(len(control.sub("", document).encode()) for document in documents)
    return _measure(model, streams, num_bytes, window, stride, progress)


def _measure(
    model: Model,
    streams: Sequence[Sequence[int]],
    num_bytes: int,
    window: int | None,
    stride: int | None,
    progress: Progress,
) -> Perplexity:
    window, stride = checked_window(model.context_length, window, stride)
    if not num_bytes:
        raise DataError("perplexity: expected at least one character of text, got none")
    spans = [span for stream in streams for span in windows(stream, window, stride)]
    scores = score(model.engine, spans, progress)
    return Perplexity(
        nats=math.fsum(loss for one in scores for loss in one.losses),
        tokens=sum(len(one.losses) for one in scores),
        bytes=num_bytes,
        texts=len(streams),
        window=window,
        stride=stride,
    )


def checked_window(context_length: int, window: int | None, stride: int | None) -> tuple[int, int]:
    """Window and stride, with defaults for what is not given.

    Raises:
        ValueError: one is out of range.
    """
    if window is None:
        window = min(context_length, LARGEST_WINDOW)
    if not 1 <= window <= context_length:
        raise ValueError(f"window: expected 1 to {context_length}, the context, got {window}")
    if stride is None:
        stride = max(1, window // 2)
    if not 1 <= stride <= window:
        raise ValueError(f"stride: expected 1 to {window}, the window, got {stride}")
    return window, stride


def windows(token_ids: Sequence[int], window: int, stride: int) -> Iterator[Span]:
    """Spans that score each token but the first once, in order.

    Args:
        token_ids: A text, opened by a token that is not scored.
        window: Tokens that are read for each span; all but the first span read as many, where
            the text has them.
        stride: Tokens that each span but the first scores, or fewer in the last.
    """
    end, start = min(window + 1, len(token_ids)), 1
    while start < end:
        begin = max(0, end - window - 1)
        yield Span(token_ids[begin:end], start - begin)
        start, end = end, min(end + stride, len(token_ids))


def opening_id(tokenizer: Tokenizer) -> int:
    """The token that stands before a text: BOS, else what ends a text.

    Raises:
        TokenizerError: there is neither.
    """
    if tokenizer.bos_token_id is not None:
        return tokenizer.bos_token_id
    if not tokenizer.eos_token_ids:
        raise TokenizerError("tokenizer: expected a BOS or EOS token to open a text, got neither")
    return tokenizer.eos_token_ids[0]


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
