"""Ways to decode that take turns in the timing loop, so that noise hits all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bitinfer.bench.cases import Case, Runs, run
from bitinfer.energy import NoCounter
from bitinfer.engine import Engine, KvCache

_RUN_S = 0.25  # about what a run of the first candidate takes
_LEAST_TOKENS, _MOST_TOKENS = 2, 64  # of a run
_CLEARLY_SLOW = 1.5  # so many times slower than the best in its first runs: it is out
_FIRST_RUNS = 2
_NO_COUNTER = NoCounter("not asked for")


@dataclass(frozen=True)
class Candidate:
    """A way to decode; the fields are those of `Engine.load` and `Engine.prefer_gemv`."""

    packing: str
    gemv: str
    weights: str
    threads: int
    ffn: str = "dense"


@dataclass
class Trial:
    """What a candidate reached.

    Attributes:
        rates: Tokens per second of each run.
        in_race: False after it was found to be clearly slow: then ``rates`` are of its first runs.
    """

    candidate: Candidate
    rates: list[float] = field(default_factory=list)
    in_race: bool = True

    @property
    def tokens_per_s(self) -> float:
        """The median."""
        return statistics.median(self.rates)


def race(
    candidates: Sequence[Candidate],
    engine_of: Callable[[Candidate], Engine],
    rounds: int,
    tick: Callable[[], None],
) -> list[Trial]:
    """Run all candidates once in each round; those clearly slow only at first.

    Args:
        candidates: At least one; the first sets how many tokens a run has, and stays in the race.
        engine_of: The loaded model that a candidate runs on; its threads and GEMV are changed.
        rounds: Counted runs of each.
        tick: Called after each round, ``rounds`` + 1 times.

    Returns:
        A trial for each candidate, in their order.
    """
    trials = [Trial(candidate) for candidate in candidates]
    caches: dict[int, KvCache] = {}

    def rate(candidate: Candidate, tokens: int) -> float:
        engine = engine_of(candidate)
        if id(engine) not in caches:
            caches[id(engine)] = engine.new_cache(min(_MOST_TOKENS + 2, engine.context_length))
        cache, taken = caches[id(engine)], Runs()
        engine.prefer_gemv(candidate.gemv)
        if engine.num_threads != candidate.threads:
            engine.num_threads = candidate.threads
        cache.trim(0)
        run(engine, cache, Case(0, tokens), _NO_COUNTER, taken)
        return tokens / taken.seconds[0]

    most = min(_MOST_TOKENS, engine_of(candidates[0]).context_length - 2)
    rate(candidates[0], min(most, _LEAST_TOKENS))  # brings the weights into memory
    tokens = int(_RUN_S * rate(candidates[0], min(most, _LEAST_TOKENS)))
    tokens = min(most, max(_LEAST_TOKENS, tokens))
    for trial in trials:
        rate(trial.candidate, 1)
        trial.rates = [rate(trial.candidate, tokens) for _ in range(_FIRST_RUNS)]
    best = max(max(trial.rates) for trial in trials)
    for trial in trials[1:]:
        trial.in_race = max(trial.rates) * _CLEARLY_SLOW >= best
    running = [trial for trial in trials if trial.in_race]
    for trial in running:
        trial.rates = []
    tick()
    for _ in range(rounds):
        for trial in running:
            trial.rates.append(rate(trial.candidate, tokens))
        tick()
    return trials
