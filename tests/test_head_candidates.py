"""benchmarks/head_candidates.py in a short form: planes choose as int8 does on real states."""

import json
import subprocess
import sys
from pathlib import Path

import head_candidates
import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "head_candidates.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("head") / "out.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--positions", "300", "--states", "0", "--json", out],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_the_embedded_model_chooses_the_same_tokens_with_either_head(runs):
    assert {(run["head"], run["top_k"]) for run in runs} == {
        (head, k) for head in ("6+2", "5+3") for k in (1, 5, 40, 100)
    }
    assert all(run["equal"] and run["positions"] == 300 for run in runs)


def test_few_rows_are_in_doubt_where_one_token_is_wanted(runs):
    for run in runs:
        if run["top_k"] == 1:
            assert run["candidates_median"] < run["rows"] / 100
            # Of 384 columns 6+2 has 256 in six bits and the rest as they are, with two floats:
            # (192 + 128 + 8) / (384 + 4) = 0.845.
            assert run["bytes_of_int8"] < {"6+2": 0.86, "5+3": 0.7}[run["head"]]


def test_a_made_head_is_searched_too(monkeypatch):
    monkeypatch.setattr(head_candidates, "VOCAB_SIZE", 4096)
    monkeypatch.setattr(head_candidates, "HIDDEN_SIZE", 256)
    found = head_candidates.on_synthetic(20)
    assert {(run["head"], run["top_k"]) for run in found} == {
        (head, k) for head in ("6+2", "5+3") for k in (1, 40)
    }
    assert all(run["equal"] and run["rows"] == 4096 for run in found)
