"""benchmarks/load.py in short: no answer is lost or another's; who goes away leaves nothing."""

from __future__ import annotations

import asyncio
import os

import pytest
from load import Leaks, disconnect, kept, load, questions
from scripted_backend import ScriptedBackend
from served import running
from serving import Process

from bitinfer.model import Model
from bitinfer.runtime import default_model


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


def process(server) -> Process:
    return Process(os.getpid(), server.port)


def test_every_answer_is_the_one_given_alone_and_nothing_leaks(model):
    asking = questions(model, 20)
    with running(model, slots=8) as server:
        tally = asyncio.run(load(process(server), asking, 100, 32))
        assert (tally.answered, tally.lost, tally.crossed) == (100, [], [])
        assert (len(tally.health_s) > 0, tally.health_failed) == (True, 0)
        assert min(tally.rss_bytes) > 0
        leaks = asyncio.run(disconnect(process(server), asking, 60, 16))
        assert leaks == Leaks(0, 0, 0, 0)


def test_what_goes_wrong_is_noticed(model):
    backend = ScriptedBackend()
    backend.script += ["not the answer"] * 3  # then it has no reply any more
    with running(model, backend=backend) as server:
        tally = asyncio.run(load(process(server), questions(model, 4), 5, 1))
    assert (tally.answered, len(tally.crossed), len(tally.lost)) == (0, 3, 2)


def test_a_promise_that_is_broken_is_told():
    good = {
        "requests": 4,
        "answered_as_alone": 4,
        "lost": [],
        "crossed": [],
        "health_asked": 9,
        "health_failed": 0,
        "rss_bytes_after_warm_up": 1000,
        "rss_bytes_runs": [1000, 1020, 980],
        "leaked": {"slots": 0, "blocks": 0},
    }
    assert all(kept(good).values())
    for name, worse in {
        "none lost": {"answered_as_alone": 3},
        "none crossed": {"crossed": [{}]},
        "/health always answered": {"health_failed": 1},
        "memory within 2%": {"rss_bytes_runs": [1000, 1021]},
        "nothing leaked": {"leaked": {"slots": 0, "blocks": 1}},
    }.items():
        assert [n for n, is_kept in kept({**good, **worse}).items() if not is_kept] == [name]
