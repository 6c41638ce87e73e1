"""benchmarks/peers.py, turns.py: programs take turns, and ratios are those of the same round."""

import pytest
import turns
from peers import Program, bitinfer_program, measure, table
from turns import undisturbed

from bitinfer import default_model

TESTS = [(512, 0), (0, 128)]


def program(name, rates, calls):
    """Runs at the given rates, one after the other, whatever the test."""
    rates = iter(rates)

    def rate(prompt, generated):
        calls.append((name, prompt, generated))
        return next(rates)

    return Program(name, "form", 5, rate, "build")


def test_programs_take_turns_and_ratios_pair_the_rounds(monkeypatch):
    monkeypatch.setattr(turns, "other_cpu_s", lambda: 0.0)
    calls = []
    ours = program("ours", [999, 999, 100, 20, 110, 22, 120, 18], calls)
    theirs = program("theirs", [1, 1, 50, 10, 100, 10, 40, 10], calls)
    records = measure([ours, theirs], TESTS, rounds=3)
    assert [name for name, *_ in calls] == ["ours", "theirs"] * 2 * 4
    assert calls[:4] == [(name, *test) for test in TESTS for name in ("ours", "theirs")]
    found = {(r["program"], r["phase"]): r for r in records}
    prefill, decode = found["theirs", "prefill"], found["theirs", "decode"]
    assert prefill["tokens_per_s_runs"] == [50, 100, 40]  # not the first round
    assert (prefill["tokens_per_s"], prefill["tokens"]) == (50, 512)
    assert (prefill["ratio_min"], prefill["ratio"], prefill["ratio_max"]) == (1.1, 2, 3)
    assert (decode["ratio"], decode["tokens"]) == (2, 128)
    assert found["ours", "decode"]["ratio"] == 1
    assert "| theirs | form | prefill 512 | 50.0 | 40.0-100.0 | 2.00 (1.10-3.00) |" in table(
        records
    )


@pytest.mark.parametrize("test", [(6, 0), (0, 3)])
def test_bitinfer_runs_each_test(test):
    ours = bitinfer_program(default_model(), 1, 16)
    assert ours.rate(*test) > 0
    assert ours.form in ("i2", "t3", "t5")


def test_a_disturbed_run_is_repeated_and_the_least_disturbed_counts(monkeypatch):
    others = iter([0, 1e9, 1e9, 1e9, 1e9, 1e9 + 5])  # before and after each run
    monkeypatch.setattr(turns, "other_cpu_s", lambda: next(others))
    assert undisturbed(iter([7, 8]).__next__) == (8, 0)
    ticks = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(turns, "other_cpu_s", lambda: next(ticks))
    runs = iter([1, 2, 3, 4, 5, 6])
    rate, share = undisturbed(runs.__next__)
    assert rate in (1, 2, 3, 4, 5)
    assert share > 1
    assert turns.MOST_TRIES == 5
    assert next(runs) == 6
