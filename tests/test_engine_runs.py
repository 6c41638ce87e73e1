"""benchmarks/engine_runs.py: a run does what its name says, on the row and threads asked for."""

import pytest
from engine_runs import allowed, forwards, generation, row

from bitinfer import default_model, runtime
from bitinfer.bench import Roofline
from bitinfer.bench.cases import Case
from bitinfer.engine import Engine


@pytest.fixture
def engine():
    return Engine.load(default_model(), num_threads=1, context_length=64)


@pytest.fixture
def steps(monkeypatch):
    """(row, threads, cache length before, tokens, logits) of every forward step."""
    calls = []
    forward = Engine.forward

    def noted(self, token_ids, caches, logits="last", **rest):
        sizes = [(cache.length, len(ids)) for ids, cache in zip(token_ids, caches, strict=True)]
        calls.append((runtime.active_isa(), self.num_threads, *sizes[0], len(sizes), logits))
        return forward(self, token_ids, caches, logits=logits, **rest)

    monkeypatch.setattr(Engine, "forward", noted)
    return calls


def test_a_generation_comes_after_its_context_on_its_row(engine, steps):
    best = runtime.active_isa()
    once = generation(engine, 2, Case(0, 3, 2), depth=5, isa="scalar")
    assert once() > 0
    first = [("scalar", 2, 0, 5, 1, "none"), ("scalar", 2, 5, 1, 1, "last")]
    assert steps[:2] == first
    assert [step[2:5] for step in steps[2:]] == [(6, 1, 2), (7, 1, 2), (8, 1, 2)]
    assert runtime.active_isa() == best
    del steps[:]
    once()
    assert steps[0] == first[1]  # the context is filled once


def test_forwards_are_all_of_as_many_tokens_after_one(engine, steps):
    assert forwards(engine, 1, tokens=4, times=3, logits="all")() > 0
    assert [step[2:] for step in steps] == [(0, 1, 1, "none"), *[(1, 4, 1, "all")] * 3]


def test_memory_allows_its_speed_of_the_round_by_the_bytes_of_a_token(engine, monkeypatch):
    speeds = [2.0, 1.0]
    monkeypatch.setattr(Roofline, "read", lambda _: speeds.pop(0))
    read = engine.bytes_per_token()
    weights = read["ternary"] + read["head"] + read["float"]
    mean = weights + (1 + 2.5) * read["kv_per_position"]  # 4 tokens after one
    once = allowed(engine, 1, Case(0, 4))
    assert once() == pytest.approx(2e9 / mean)
    assert once() == pytest.approx(1e9 / mean)


def test_the_row_is_put_back_after_an_error():
    before = runtime.active_isa()
    with pytest.raises(ZeroDivisionError), row("scalar"):
        _ = 1 / 0
    assert runtime.active_isa() == before
