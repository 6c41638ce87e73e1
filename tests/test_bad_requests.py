"""benchmarks/bad_requests.py: each kind gets the answer that it should, and hurts nobody."""

from __future__ import annotations

import pytest
from bad_requests import KEY, KINDS, Bad, measure
from served import running

from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve import limits

ELSEWHERE = {"port taken", "stalled reader"}  # in test_cli_serve.py and test_serve_guard.py


@pytest.fixture(scope="module")
def served():
    with (
        Model.load(default_model()) as model,
        running(model, slots=1, queue_limit=1, api_key=KEY) as server,
    ):
        yield server
        counts = server.service.backend.counts()
        assert (counts.waiting, counts.running) == (0, 0)
        assert counts.cache_tokens_used == counts.cache_tokens_kept


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ELSEWHERE])
def test_a_bad_request_is_answered_and_the_server_unhurt(served, monkeypatch, kind):
    monkeypatch.setattr(limits, "HEADER_TIME_S", 0.1)
    assert measure(kind, served.port, 1)["answer"] == KINDS[kind].expected


def test_another_answer_is_noticed(served, monkeypatch):
    monkeypatch.setitem(KINDS, "good", Bad("400 invalid_json", KINDS["broken JSON"].ask))
    assert measure("good", served.port, 1)["answered_ms"] > 0
    monkeypatch.setitem(KINDS, "good", Bad("400 too_deep", KINDS["broken JSON"].ask))
    with pytest.raises(SystemExit, match="expected 400 too_deep, got 400 invalid_json"):
        measure("good", served.port, 1)
