"""When and how much is drafted: a scripted machine whose clock is the cost of its runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scripted_engine import ScriptedCache

from bitinfer.generate import generate_step
from bitinfer.speculation import Pace, Speculator

SHARES = (0.3, 0.45, 0.6, 0.8)  # what is hoped for, by outlook


class Machine:
    """An engine whose run of n tokens takes ``costs[n]`` seconds; it says 0 for ever."""

    prefill_chunk = 256

    def __init__(self, costs) -> None:
        self.costs, self.now = costs, 0.0
        self.runs: list[int] = []

    def check_ids(self, token_ids):
        return np.asarray(token_ids, np.int32)

    def forward(self, token_ids, caches, *, logits="last", **_):
        self._run(len(token_ids[0]), caches[0])
        return np.zeros((len(token_ids[0]) if logits == "all" else 1, 1), np.float32)

    def decode(self, token_id, cache, out, **_):
        self._run(1, cache)

    def _run(self, tokens, cache):
        cache.length += tokens
        self.now += self.costs[tokens]
        self.runs.append(tokens)


class Chances:
    """Drafts with an outlook of 3, of which a token is right with a chance that may change."""

    def __init__(self, chance, outlook=3) -> None:
        self._rng = np.random.default_rng(0)
        self._chance, self._outlook, self._said = chance, outlook, 0

    def extend(self, token_ids):
        self._said += len(token_ids)

    def outlook(self):
        return self._outlook

    def draft(self, count):
        return [int(self._rng.random() >= self._chance(self._said + n)) for n in range(count)]

    def close(self):
        pass


def steps_per_token(machine: Machine, chance, tokens: int = 2000, pace: Pace | None = None):
    """Time of a generation over that of as many runs of one token."""
    speculator = Speculator(Chances(chance), pace or Pace(SHARES), lambda: machine.now)
    cache, start = ScriptedCache(10**9), machine.now
    steps = generate_step(machine, [1], cache, lambda _: 0, speculator=speculator)
    assert list(itertools.islice(steps, tokens)) == [0] * tokens
    return (machine.now - start) / (tokens * machine.costs[1])


def costs(slope: float, step: float = 0.02):
    return [0.0, *(step * (1 + slope * n) for n in range(16))]


def test_good_drafts_on_a_machine_that_runs_them_for_little_pay() -> None:
    assert steps_per_token(Machine(costs(0.05)), lambda _: 0.95) < 0.3


def test_the_longest_draft_is_not_made_where_each_token_costs() -> None:
    machine = Machine(costs(0.45))
    assert steps_per_token(machine, lambda _: 0.8) < 0.95
    assert max(machine.runs, key=machine.runs.count) < 6


@pytest.mark.parametrize("slope", [0.05, 0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("chance", [0.0, 0.2, 0.5])
def test_never_more_than_the_first_credit_and_one_per_cent_is_lost(slope, chance) -> None:
    tokens = 2000
    taken = steps_per_token(Machine(costs(slope)), lambda _: chance, tokens)
    assert taken <= 1.0 + 0.01 + (2 + 8 * max(0, slope - 0.2)) / tokens


def test_nothing_is_drafted_where_a_token_costs_a_step_even_if_all_are_right() -> None:
    machine = Machine(costs(1.0))
    assert steps_per_token(machine, lambda _: 1.0) < 1.02
    assert machine.runs.count(1) > 1900


def test_what_failed_is_tried_again_and_taken_up_when_the_text_changes() -> None:
    machine = Machine(costs(0.1))
    taken = steps_per_token(machine, lambda n: 0.0 if n < 1000 else 0.95, 2000)
    assert taken < 0.5 + 0.5 * 0.6
    later = machine.runs[-100:]
    assert sum(later) / len(later) > 5


def test_a_generation_begins_with_what_the_last_one_learnt() -> None:
    pace = Pace(SHARES)
    machine = Machine(costs(1.0))
    steps_per_token(machine, lambda _: 0.0, 500, pace)
    before = len(machine.runs)
    steps_per_token(machine, lambda _: 0.0, 100, pace)
    assert sum(n > 1 for n in machine.runs[before:]) <= 1


def test_one_slow_run_is_not_taken_for_the_rule() -> None:
    machine = Machine(costs(0.05))
    pace = Pace(SHARES)
    steps_per_token(machine, lambda _: 0.95, 200, pace)
    machine.now += 100  # between two generations
    machine.costs = [50 * seconds for seconds in costs(0.05)]
    steps_per_token(machine, lambda _: 0.95, 2, pace)  # one run of a draft that took so long
    machine.costs = costs(0.05)
    assert steps_per_token(machine, lambda _: 0.95, 500, pace) < 0.35


def test_a_run_without_a_draft_is_timed_now_and_then() -> None:
    machine = Machine(costs(0.05))
    steps_per_token(machine, lambda _: 1.0, 3000)
    assert 2 <= machine.runs[50:].count(1) <= 10
