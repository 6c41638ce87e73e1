"""The loop: prompt ids are prefilled, then sampling and decode alternate; for one text or several.

What becomes of the ids is `reply.Reply`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer.engine import Engine, KvCache
from bitinfer.errors import ContextLengthError, PromptError
from bitinfer.generate.reply import FinishReason
from bitinfer.sampling import ChooseToken
from bitinfer.speculation import Speculator


class Growing(Protocol):
    """What the loop needs of a reply that it grows."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it has ended; None while it has not."""

    def add(self, token_id: int) -> str:
        """Take a token; returns the text that became certain."""

    def end(self, reason: Literal["length"]) -> str:
        """End it: its cache is full. Returns the text that waited."""


def generate_step(
    engine: Engine,
    token_ids: Sequence[int],
    cache: KvCache,
    choose: ChooseToken,
    vocab_size: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
    speculator: Speculator | None = None,
) -> Iterator[int]:
    """Generate ids, without end or until the cache is full.

    The prompt is run in chunks of ``engine.prefill_chunk``, so that Ctrl-C is heard between them.
    Of a draft, which runs with the token before it, counts what ``choose`` would have chosen in
    any case: the ids are the same with a speculator as without.

    Args:
        engine: Runs the model.
        token_ids: Prompt after what ``cache`` holds; at least one.
        cache: Is appended to: all tokens but the last generated one, once the iterator is closed.
        choose: Chooses from logits ``(vocab_size,)``, which the next step may write anew.
        vocab_size: Ids below it may be chosen (an embedding can have padding rows); 0: all.
        cancelled: Asked before each run of the model; when true, the generation ends.
        speculator: Proposes drafts; None: one token is run at a time.

    Raises:
        PromptError: ``token_ids`` is empty or holds an id outside the vocabulary.
        ContextLengthError: it does not fit the cache.
    """
    if speculator is None:
        return _one_by_one(engine, token_ids, cache, choose, vocab_size, cancelled)
    return _with_drafts(engine, token_ids, cache, choose, vocab_size, cancelled, speculator)


def _one_by_one(
    engine: Engine,
    token_ids: Sequence[int],
    cache: KvCache,
    choose: ChooseToken,
    vocab_size: int,
    cancelled: Callable[[], bool],
) -> Iterator[int]:
    """`generate_step` without drafts. A small model's token takes as long as a dozen calls here."""
    pending = _prefill(engine, token_ids, cache, cancelled)
    if cancelled():
        return
    top_k = most_candidates([choose])
    row = engine.forward([pending], [cache], top_k=top_k, vocab_size=vocab_size)[0]
    logits = row[:vocab_size] if vocab_size else row
    for _ in range(cache.capacity - cache.length):
        token_id = choose(logits)
        yield token_id
        if cancelled():
            return
        engine.decode(token_id, cache, row, top_k=top_k, vocab_size=vocab_size)
    yield choose(logits)


def _with_drafts(
    engine: Engine,
    token_ids: Sequence[int],
    cache: KvCache,
    choose: ChooseToken,
    vocab_size: int,
    cancelled: Callable[[], bool],
    speculator: Speculator,
) -> Iterator[int]:
    """`generate_step` with drafts."""
    pending = _prefill(engine, token_ids, cache, cancelled)
    top_k = most_candidates([choose])
    kept = cache.length
    chosen: list[int] = []  # by the last run
    draft: Sequence[int] = ()
    try:
        if cancelled():
            return
        one = rows = engine.forward([pending], [cache], top_k=top_k, vocab_size=vocab_size)
        while True:
            speculator.ran()
            kept = cache.length - len(draft)
            for logits, guess in zip_longest(rows, draft):
                token_id = choose(logits[:vocab_size] if vocab_size else logits)
                chosen.append(token_id)
                yield token_id
                if token_id != guess:
                    break
                kept += 1
            if draft:
                cache.trim(kept)
            if kept >= cache.capacity:
                return
            draft = speculator.propose(chosen, cache.capacity - kept - 1)
            last, chosen = chosen[-1], []
            if cancelled():
                return
            if draft:
                ids = [last, *draft]
                rows = engine.forward(
                    [ids], [cache], logits="all", top_k=top_k, vocab_size=vocab_size
                )
            else:
                engine.decode(last, cache, one[0], top_k=top_k, vocab_size=vocab_size)
                rows = one
    finally:
        cache.trim(kept)
        speculator.close(chosen)


def generate_many(
    engine: Engine,
    token_ids: Sequence[int],
    cache: KvCache,
    chooses: Sequence[ChooseToken],
    replies: Sequence[Growing],
    vocab_size: int = 0,
) -> Iterator[int]:
    """Grow several replies to one prompt until all have ended, all of them in each step.

    The prompt is run once, and a step reads the weights once for all replies.

    Args:
        engine: Runs the model.
        token_ids: Prompt after what ``cache`` holds; at least one.
        cache: Serves the first reply; the others get copies of it after the prompt.
        chooses: Chooses the tokens of each reply.
        replies: As many.
        vocab_size: As in `generate_step`.

    Yields:
        How many replies are still growing, once a step.
    """
    pending = _prefill(engine, token_ids, cache, lambda: False)
    top_k = most_candidates(chooses)
    row = engine.forward([pending], [cache], top_k=top_k, vocab_size=vocab_size)
    rows = np.repeat(row, len(replies), axis=0)
    caches = [cache, *(cache.copy() for _ in replies[1:])]
    active = list(range(len(replies)))
    while active:
        tokens: dict[int, int] = {}
        for i, logits in zip(active, rows, strict=True):
            tokens[i], _ = take_token(logits, chooses[i], replies[i], caches[i], vocab_size)
        active = [i for i in active if replies[i].finish_reason is None]
        yield len(active)
        if active:
            ids = [np.array([tokens[i]], np.int32) for i in active]
            running = [caches[i] for i in active]
            rows = engine.forward(ids, running, top_k=top_k, vocab_size=vocab_size)


def take_token(
    logits: NDArray[np.float32],
    choose: ChooseToken,
    reply: Growing,
    cache: KvCache,
    vocab_size: int = 0,
) -> tuple[int, str]:
    """Let one of several replies grow by the token that ``choose`` takes; returns it and new text.

    The reply ends if its cache is full, since the token could not be run.
    """
    token_id = choose(logits[:vocab_size] if vocab_size else logits)
    text = reply.add(token_id)
    if reply.finish_reason is None and cache.length >= cache.capacity:
        text += reply.end("length")
    return token_id, text


def _prefill(
    engine: Engine, token_ids: Sequence[int], cache: KvCache, cancelled: Callable[[], bool]
) -> NDArray[np.int32]:
    """Run all chunks of a prompt but the last, which is returned."""
    pending = engine.check_ids(token_ids)
    chunk = engine.prefill_chunk
    while len(pending) > chunk and not cancelled():
        engine.forward([pending[:chunk]], [cache], logits="none")
        pending = pending[chunk:]
    return pending


def most_candidates(chooses: Sequence[ChooseToken]) -> int:
    """How many of the largest logits decide; 0: all may, which a plain function does not tell."""
    counts = [getattr(choose, "most_candidates", 0) for choose in chooses]
    return max(counts, default=0) if all(counts) else 0


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
