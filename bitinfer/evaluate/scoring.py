"""How likely a model finds tokens: many texts at a time, common beginnings once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitinfer.engine import Engine, KvCache
from bitinfer.losses import token_losses

Progress = Callable[[int, int], None]

_BATCH_TOKENS = 1024  # of one step; more tokens share no read of weights, for the engine takes 256
_BATCH_SPANS = 32  # each takes a block of the KV cache or more: 5 MB of a model of 2 G parameters
_LOGITS_BYTES = 128 << 20


@dataclass(frozen=True)
class Span:
    """A text whose end is scored.

    Attributes:
        token_ids: All tokens.
        start: The first one that is scored, given those before it; at least 1.
    """

    token_ids: Sequence[int]
    start: int

    @property
    def prefix(self) -> tuple[int, ...]:
        """What is only read: all before the token after which the first scored one comes."""
        return tuple(self.token_ids[: self.start - 1])


@dataclass(frozen=True)
class Score:
    """What the model thinks of the end of a `Span`.

    Attributes:
        losses: ``-log p`` of each scored token, float64 ``(tokens,)``, nats.
        greedy: Whether each of them is the likeliest, the first among equals.
    """

    losses: NDArray[np.float64]
    greedy: bool

    @property
    def logprob(self) -> float:
        """Log-likelihood of the scored tokens together."""
        return -float(self.losses.sum())


def score(
    engine: Engine, spans: Sequence[Span], progress: Progress = lambda done, total: None
) -> list[Score]:
    """Score spans, each as it would be alone: no bit depends on the others.

    Args:
        engine: Runs them.
        spans: Those with a common prefix should be neighbours, which then is run once.
        progress: Called with how many tokens are done, and how many there are.

    Raises:
        PromptError: a token is outside the vocabulary, or there are more than the context holds
            (ContextLengthError).
    """
    most_rows = max(1, _LOGITS_BYTES // (4 * engine.vocab_size))
    total = sum(len(span.token_ids) - 1 for span in spans)
    done, found = 0, []
    for batch in _batches(spans, min(most_rows, _BATCH_TOKENS)):
        caches = _prefilled(engine, batch)
        done += sum(span.start - 1 for span in batch)
        progress(done, total)
        losses: list[list[NDArray[np.float64]]] = [[] for _ in batch]
        greedy = [True] * len(batch)
        for running in _pieces(batch, most_rows):
            inputs = [batch[i].token_ids[at - 1 : end - 1] for i, at, end in running]
            logits = engine.forward(inputs, [caches[i] for i, *_ in running], logits="all")
            row = 0
            for i, at, end in running:
                rows, targets = logits[row : row + end - at], batch[i].token_ids[at:end]
                losses[i].append(token_losses(rows, targets))
                greedy[i] &= bool((rows.argmax(axis=1) == targets).all())
                row += end - at
            done += row
            progress(done, total)
        found += [Score(np.concatenate(parts), g) for parts, g in zip(losses, greedy, strict=True)]
    return found


def _batches(spans: Sequence[Span], most_rows: int) -> Iterator[list[Span]]:
    """Neighbouring spans, so many that they fill a step; a longer one alone."""
    batch: list[Span] = []
    tokens = rows = 0
    for span in spans:
        new_rows = len(span.token_ids) - span.start
        shared = bool(batch) and batch[-1].prefix == span.prefix
        new_tokens = new_rows + (0 if shared else span.start)
        fits = tokens + new_tokens <= _BATCH_TOKENS and rows + new_rows <= most_rows
        if batch and not (fits and len(batch) < _BATCH_SPANS):
            yield batch
            batch, tokens, rows = [], 0, 0
            new_tokens = len(span.token_ids)
        batch.append(span)
        tokens, rows = tokens + new_tokens, rows + new_rows
    if batch:
        yield batch


def _prefilled(engine: Engine, batch: Sequence[Span]) -> list[KvCache]:
    """A cache for each span that holds its prefix; equal prefixes share their memory."""
    longest = max(len(span.token_ids) for span in batch) - 1
    shared: dict[tuple[int, ...], KvCache] = {}
    for span in batch:
        if span.prefix not in shared:
            shared[span.prefix] = engine.new_cache(longest)
    read = [prefix for prefix in shared if prefix]
    if read:
        engine.forward(read, [shared[prefix] for prefix in read], logits="none")
    return [shared[span.prefix].copy() for span in batch]


def _pieces(batch: Sequence[Span], most_rows: int) -> Iterator[list[tuple[int, int, int]]]:
    """Steps of (span, first token, end): one step, but where a span has more than ``most_rows``."""
    longest = max(len(span.token_ids) - span.start for span in batch)
    for offset in range(0, longest, most_rows):
        step = []
        for i, span in enumerate(batch):
            at = span.start + offset
            end = min(at + most_rows, len(span.token_ids))
            if at < end:
                step.append((i, at, end))
        yield step
