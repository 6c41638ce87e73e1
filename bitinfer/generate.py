"""The one generation loop: `generate_step` makes ids, `TextStream` makes text of them and stops.

Prompt ids are prefilled, then sampling and decode alternate; each id goes through the streaming
detokenizer and the search for stop strings, and comes out as a piece of text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

import numpy as np

from bitinfer.engine import Engine, KvCache
from bitinfer.errors import ContextLengthError, PromptError
from bitinfer.sampling import ChooseToken
from bitinfer.tokenizer import StreamingDetokenizer, Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Usage:
    """What a generation counted and took.

    Attributes:
        prompt_tokens: Length of the prompt.
        cached_tokens: How many of them a cache already held.
        completion_tokens: Tokens generated, an end token included.
        prefill_s: From the start to the first generated token.
        decode_s: From there to the last one.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float


@dataclass(frozen=True)
class Completion:
    """A finished generation.

    Attributes:
        text: Without the end token and without the stop string.
        token_ids: Every generated id, an end token included.
        finish_reason: "stop" (end token or stop string) or "length" (max_tokens, or the context
            is full).
        usage: Counts and times.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage


def generate_step(
    engine: Engine,
    token_ids: Sequence[int],
    cache: KvCache,
    sampler: ChooseToken,
    vocab_size: int = 0,
) -> Iterator[int]:
    """Generate ids, without end or until the cache is full.

    The prompt is run in chunks of ``engine.prefill_chunk``, so that Ctrl-C is heard between them.

    Args:
        engine: Runs the model.
        token_ids: Prompt after what ``cache`` holds; at least one.
        cache: Is appended to: all tokens but the last generated one.
        sampler: Chooses from logits ``(vocab_size,)``.
        vocab_size: Ids below it may be chosen (an embedding can have padding rows); 0: all.

    Raises:
        PromptError: ``token_ids`` is empty or holds an id outside the vocabulary.
        ContextLengthError: it does not fit the cache.
    """
    pending = engine.check_ids(token_ids)
    chunk = engine.prefill_chunk
    while len(pending) > chunk:
        engine.forward([pending[:chunk]], [cache], logits="none")
        pending = pending[chunk:]
    while True:
        logits = engine.forward([pending], [cache], logits="last")[0]
        token_id = sampler(logits[:vocab_size] if vocab_size else logits)
        yield token_id
        if cache.length >= cache.capacity:
            return
        pending = np.array([token_id], dtype=np.int32)


class StopStrings:
    """Finds stop strings in a text that comes in pieces, giving out only what is none of them.

    Of several, the one that is complete first counts, so the pieces' borders change nothing.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """Take a piece; return the text that is certain, and whether a stop string is complete."""
        text = self._held + piece
        ends = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        held = next((n for n in range(self._longest(text), 0, -1) if self._begins(text[-n:])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def finish(self) -> str:
        """Return what was held back for a stop string that never came."""
        held, self._held = self._held, ""
        return held

    def _longest(self, text: str) -> int:
        return min(len(text), max((len(s) - 1 for s in self._stops), default=0))

    def _begins(self, tail: str) -> bool:
        return any(s.startswith(tail) for s in self._stops)


@dataclass(frozen=True)
class StopRules:
    """When a generation ends, besides the end of the context."""

    max_tokens: int
    eos_token_ids: frozenset[int] = field(default_factory=frozenset)
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: ``max_tokens`` is below 1 or a stop string is empty.
        """
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise ValueError(
                f"max_tokens: expected a whole number from 1 up, got {self.max_tokens!r}"
            )
        if not all(isinstance(s, str) and s for s in self.stops):
            raise ValueError("stop: expected strings that are not empty")


class TextStream(Iterator[str]):
    """Pieces of generated text; iterate over it, then read ``completion``.

    ``close`` (or leaving a ``with`` block, or deleting it) stops early and frees the cache at once.
    """

    def __init__(
        self,
        steps: Iterator[int],
        *,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        rules: StopRules,
        cached_tokens: int = 0,
        release: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """Make text of ``steps``.

        Args:
            steps: Generated ids.
            tokenizer: Makes text of them.
            prompt_ids: The whole prompt; its end is the context of the first piece.
            rules: When to stop.
            cached_tokens: For `Usage`.
            release: Called once at the end with the generated ids.
        """
        self._steps = steps
        self._detokenizer = StreamingDetokenizer(tokenizer, prompt_ids)
        self._stop_strings = StopStrings(rules.stops)
        self._rules = rules
        self._prompt_tokens = len(prompt_ids)
        self._cached_tokens = cached_tokens
        self._release = release
        self._ids: list[int] = []
        self._text: list[str] = []
        self._finish_reason: FinishReason | None = None
        self._started_s = time.perf_counter()
        self._first_s = self._last_s = self._started_s

    def __next__(self) -> str:
        while self._finish_reason is None:
            try:
                piece = self._advance()
            except BaseException:
                self.close()
                raise
            if self._finish_reason is not None:
                self.close()
            if piece:
                self._text.append(piece)
                return piece
        raise StopIteration

    def _advance(self) -> str:
        """Run one token; return the text that became certain, and set the finish reason."""
        token_id = next(self._steps, None)
        if token_id is None:  # the cache is full
            return self._end("length")
        self._ids.append(token_id)
        self._last_s = time.perf_counter()
        if len(self._ids) == 1:
            self._first_s = self._last_s
        if token_id in self._rules.eos_token_ids:
            return self._end("stop")
        piece, stopped = self._stop_strings.add(self._detokenizer.add(token_id))
        if stopped:
            self._finish_reason = "stop"
        elif len(self._ids) >= self._rules.max_tokens:
            return piece + self._end("length")
        return piece

    def _end(self, reason: FinishReason) -> str:
        """Give out what waits, which may still hold a stop string."""
        piece, stopped = self._stop_strings.add(self._detokenizer.finish())
        self._finish_reason = "stop" if stopped else reason
        return piece + self._stop_strings.finish()

    def close(self) -> None:
        """Stop now; what was generated stays in ``completion``. May be called again."""
        self._finish_reason = self._finish_reason or "length"
        release, self._release = self._release, None
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
        if release is not None:
            release(self._ids)

    @property
    def completion(self) -> Completion:
        """What was generated so far, all of it after the last piece."""
        return Completion(
            text="".join(self._text),
            token_ids=tuple(self._ids),
            finish_reason=self._finish_reason or "length",
            usage=Usage(
                prompt_tokens=self._prompt_tokens,
                cached_tokens=self._cached_tokens,
                completion_tokens=len(self._ids),
                prefill_s=self._first_s - self._started_s,
                decode_s=self._last_s - self._first_s,
            ),
        )

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_release", None) is not None:
            self.close()


def generate(stream: TextStream) -> Completion:
    """Run ``stream`` to its end."""
    with stream:
        for _ in stream:
            pass
    return stream.completion


def check_prompt(engine: Engine, token_ids: Sequence[int]) -> None:
    """Refuse a prompt that leaves no room for one token, before anything is run.

    Raises:
        PromptError: there is no token, or one is outside the vocabulary.
        ContextLengthError: the prompt fills the context or exceeds it.
    """
    if not len(token_ids):
        raise PromptError("prompt: expected at least 1 token, got 0: give it some text")
    engine.check_ids(token_ids)
    length = engine.context_length
    if len(token_ids) >= length:
        raise ContextLengthError(
            f"prompt: expected at most {length - 1} tokens (the context holds {length}, one is "
            f"for the reply), got {len(token_ids)}: shorten it, or raise context_length (up to "
            f"{engine.spec['max_position_embeddings']})"
        )
