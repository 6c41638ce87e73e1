"""What is timed: the loop that users run, of a prompt, of generated tokens, or of both.

*Prefill* is a prompt up to and with its first generated token; *decode*, further tokens after a
prompt of one, of one sequence (``generate.generate_step``) or of several at once
(``generate.generate_many``).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from bitinfer.energy import EnergyCounter
from bitinfer.engine import Engine, KvCache
from bitinfer.generate import generate_many, generate_step
from bitinfer.sampling import Sampler, SamplingParams


@dataclass(frozen=True)
class Case:
    """A prompt, and tokens generated after it by ``batch`` sequences; not both 0.

    Attributes:
        prompt: Tokens of the prompt.
        generated: Tokens of each sequence after it.
        batch: Sequences that are generated at once.
    """

    prompt: int
    generated: int
    batch: int = 1

    @property
    def tokens(self) -> int:
        """All that are timed."""
        return self.prompt + self.batch * self.generated

    @property
    def positions(self) -> int:
        """What each cache must hold."""
        return self.prompt + self.generated

    @property
    def phase(self) -> str:
        """``prefill``, ``decode`` or ``prefill+decode``."""
        return "+".join(["prefill"] * bool(self.prompt) + ["decode"] * bool(self.generated))


@dataclass
class Runs:
    """What the counted runs of one case took."""

    seconds: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)  # None: the counter gave nothing


class _EndlessReply:
    """Takes tokens and never ends: all that the loop wants of a reply."""

    finish_reason = None

    def add(self, token_id: int) -> str:
        """Take a token."""
        return ""

    def end(self, reason: str) -> str:
        """Not heard: the cache has room for all that is measured."""
        return ""


def fill(engine: Engine, cache: KvCache, depth: int) -> None:
    """Bring the cache to ``depth`` tokens: only those that it lacks are run."""
    if cache.length >= depth:
        cache.trim(depth)
        return
    missing = random_ids(engine, depth)[cache.length :]
    for begin in range(0, len(missing), engine.prefill_chunk):
        chunk = missing[begin : begin + engine.prefill_chunk]
        engine.forward([chunk], [cache], logits="none")


def run(engine: Engine, cache: KvCache, case: Case, counter: EnergyCounter, taken: Runs) -> None:
    """Run a case after what the cache holds, and add what it took to ``taken``."""
    with closing(_steps(engine, cache, case)) as steps:
        if not case.prompt:
            next(steps)  # the prompt of one: not measured
        joules, start = counter.joules(), time.perf_counter()
        for _ in range(case.generated + bool(case.prompt)):
            next(steps)
        taken.seconds.append(time.perf_counter() - start)
    after = counter.joules()
    taken.joules.append(None if joules is None or after is None else after - joules)


def _steps(engine: Engine, cache: KvCache, case: Case) -> Generator[int, None, None]:
    """The loop itself; each item is one step of every sequence."""
    ids = random_ids(engine, case.prompt or 1)
    if case.batch == 1:
        steps = generate_step(engine, ids, cache, Sampler(SamplingParams()))
    else:
        replies = [_EndlessReply() for _ in range(case.batch)]
        steps = generate_many(
            engine, ids, cache, [Sampler(SamplingParams()) for _ in replies], replies
        )
    return cast(Generator[int, None, None], steps)


def random_ids(engine: Engine, count: int) -> list[int]:
    """As many token ids, always the same."""
    ids: list[int] = np.random.default_rng(0).integers(engine.vocab_size, size=count).tolist()
    return ids
