"""benchmarks/serving_page.py: docs/serve.md says what the newest records hold."""

from __future__ import annotations

import json

from bench_records import MACHINE
from serving_page import parts

BATCH = {
    "test": "batching",
    "shape": "bitnet-2b-4t",
    "prompt_tokens": 64,
    "generated_tokens": 32,
    "concurrent": 16,
    "tokens_per_s": 120.0,
    "ratio": 3.9,
    "ratio_min": 3.5,
    "ratio_max": 4.2,
    "target": 4.0,
}
SERVER = {
    "test": "http",
    "program": "bitinfer",
    "concurrent": 16,
    "requests_per_s": 1.25,
    "tokens_per_s": 40.0,
    "ttft_s_median": 4.5,
}
LOAD = {
    "requests": 10_000,
    "concurrent": 64,
    "answered_as_alone": 9_999,
    "lost": ["x"],
    "crossed": [],
    "requests_per_s": 200.0,
    "rss_bytes_least": 100e6,
    "rss_bytes_most": 101e6,
    "health_asked": 50,
    "health_failed": 0,
    "health_ms_median": 2.0,
    "health_ms_most": 30.0,
    "disconnects": 1000,
    "leaked": {"slots": 0, "blocks": 2},
    "kept": {"none lost": False, "none crossed": True},
}
FUZZ = {
    "program": "schemathesis 4",
    "requests": 9,
    "examples": 500,
    "statuses": {"/": {"200": 4}, "/x": {"400": 3, "500": 2}},
}


def test_the_page_tells_what_the_newest_records_hold(tmp_path):
    bad = [
        {"request": "broken JSON", "answer": "400 invalid_json", "answered_ms": 2.0},
        {"request": "slow headers", "answer": "408 timeout", "answered_ms": 10_001.0},
    ]
    records = {"throughput": [BATCH, SERVER], "load": [LOAD], "fuzz": [FUZZ], "bad-requests": bad}
    for name, found in records.items():
        (tmp_path / name).mkdir()
        for day, content in (("2026-11-01", [{"old": True}]), ("2026-11-02", found)):
            dated = [{**one, **MACHINE, "date": day} for one in content]
            (tmp_path / name / f"{day}.json").write_text(json.dumps(dated))
    page = parts(tmp_path)
    assert "**3.90** times one alone (3.50-4.20; wanted: 4 (not reached))" in page["throughput"]
    assert "| bitinfer, 16 at once | 1.25 | 40.0 | 4.5 |" in page["throughput"]
    assert "9,999 answers as given alone, 1 lost, 0 another's" in page["load"]
    assert "left 2 slots" in page["load"]
    assert page["load"].endswith("Not kept: none lost.")
    assert "2 answers were a 5xx (2026-11-02" in page["fuzz"]
    assert "| slow headers | 408 timeout | 10001 |" in page["bad-requests"]
    assert "| broken JSON" not in page["bad-requests"]


def test_without_records_the_page_stays(tmp_path):
    assert parts(tmp_path) == {}
