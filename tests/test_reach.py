"""benchmarks/reach*.py, speed_page.py: what a line says is what its runs say."""

import json
import xml.etree.ElementTree as ET

import pytest
import reach_plot
import speed_page
from bench_records import MACHINE
from reach_lines import Group, Line, by_target, line_text, reached, records_of
from turns import Turns

FACTS = {"shape": "bitnet-2b-4t", "threads": 2, "isa": "amx", "peer": "llama.cpp", **MACHINE}


def measured(line, rates):
    """The record of one line."""
    group = Group("tokens/s", {}, [line])
    (record,) = records_of("decode", group, Turns(rates, 0.01), rounds=3)
    return record | FACTS


@pytest.fixture
def faster():
    line = Line("decode by the peer", "ours", ("slow", "fast"), 3.0)
    return measured(line, {"ours": [30, 36, 33], "slow": [9, 9, 9], "fast": [10, 9, 11]})


def test_the_faster_of_the_peers_counts_round_by_round(faster):
    assert faster["under"] == "fast"
    assert (faster["ratio_min"], faster["ratio"], faster["ratio_max"]) == (3, 3, 4)
    assert (faster["over_runs"], faster["under_runs"]) == ([30, 36, 33], [10, 9, 11])
    assert (faster["group"], faster["unit"], faster["rounds"]) == ("decode", "tokens/s", 3)


@pytest.mark.parametrize(
    ("target", "at_most", "verdict"),
    [(2.0, False, True), (2.1, False, False), (2.0, True, True), (1.9, True, False)],
)
def test_a_target_is_a_least_or_a_most(target, at_most, verdict):
    line = Line("cost", "one", ("five",), target, at_most)
    record = measured(line, {"one": [20.0], "five": [10.0]})
    assert reached(record) is verdict
    assert (by_target(record)[1] >= 1) is verdict
    assert ("NOT reached" in line_text(record)) is not verdict


def test_spans_by_target_go_from_worse_to_better():
    line = Line("cost", "one", ("five",), 2.0, at_most=True)
    record = measured(line, {"one": [10.0, 20.0, 40.0], "five": [10.0] * 3})
    assert by_target(record) == (0.5, 1, 2)  # ratios 4, 2, 1


def test_a_line_without_a_target_is_only_told(faster):
    line = Line("told", "a", ("b",))
    record = measured(line, {"a": [2.0], "b": [1.0]})
    assert reached(record) is None
    assert "reached" not in line_text(record)


def test_a_page_takes_each_line_from_the_newest_record_of_a_machine(tmp_path, faster):
    other = {**faster, "line": "another"}
    old = [{**faster, "ratio": 1.0, "date": "2026-01-01"}, {**other, "date": "2026-01-01"}]
    (tmp_path / "b.json").write_text(json.dumps(old))
    (tmp_path / "a.json").write_text(json.dumps([faster]))
    elsewhere = {**faster, "ratio": 2.0, "cpu": "Another (R) CPU", "date": "2026-01-02"}
    (tmp_path / "c.json").write_text(json.dumps([elsewhere]))
    found = speed_page.machines(tmp_path)
    assert {
        cpu: [(line["line"], line["ratio"]) for line in lines] for cpu, lines in found.items()
    } == {
        faster["cpu"]: [("decode by the peer", 3), ("another", 3)],
        "Another (R) CPU": [("decode by the peer", 2.0)],
    }
    assert next(iter(found)) == faster["cpu"]  # measured last
    first, second = map(speed_page.plot_name, found)
    assert first != second == "reach-another-cpu"


def test_the_table_sets_targets_beside_what_was_measured(faster):
    missed = {**faster, "line": "missed", "target": 5.0}
    rows = speed_page.table([faster, missed]).splitlines()[2:]
    assert "| ≥ 3 | **3.00** | 3.00-4.00 |" in rows[0]
    assert "33.0 tokens/s (ours); 10.0 (fast)" in rows[0]
    assert "**3.00** (not reached)" in rows[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_names_every_line_and_its_target(tmp_path, faster, theme):
    most = {**faster, "line": "cost", "target": 1.4, "at_most": True}
    told = {**faster, "line": "told", "target": None}
    path = tmp_path / "plots" / "reach.svg"
    reach_plot.draw([faster, most, told], path, theme)
    texts = [e.text for e in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    for text in ("decode by the peer", "cost", "3.00 (≥ 3)", "3.00 (≤ 1.4)"):
        assert text in texts
    assert "told" not in texts
    assert {"reached", "not reached"} <= set(texts)
