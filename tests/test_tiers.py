"""benchmarks/tiers*.py, instructions.py: what is measured of a row, what the page says of it."""

import json
import re
import sys
from pathlib import Path

import instructions
import pytest
import tiers
import tiers_page
from bench_records import MACHINE
from engine_runs import row
from instructions import NotCountedError, by_call, count_instructions
from tiers import FAMILIES, SHORT, Bed, lasting, wanted_rows

from bitinfer import _core, runtime

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "kernels-by-tier.md").read_text(encoding="utf-8")


def made(packing, family, threads, rates, counted=None, isa="avx2"):
    """A record of a row whose default is t3 addsub."""
    families = {"t3": "addsub", "i2": "dot"}
    return {
        "isa": isa,
        "auto_packing": "t3",
        "auto_family": families[packing],
        "packing": packing,
        "family": family,
        "threads": threads,
        "m": 1,
        "n": 64,
        "k": 240,
        "giga_weights_per_s": sorted(rates)[1],
        "giga_weights_per_s_runs": rates,
        "gb_per_s": 9.5,
        "instructions_per_1000_weights": counted,
        "rounds": 3,
        "shape": "bitnet-2b-4t",
        **MACHINE,
    }


@pytest.fixture
def records():
    """With one thread another kernel is faster, with two the default."""
    return [
        made("i2", "addsub", 1, [20, 21, 19], 299.6),
        made("i2", "addsub", 2, [56, 57, 58]),
        made("i2", "dot", 1, [50, 60, 44], 174.0),
        made("i2", "dot", 2, [54, 55, 53]),
        {**made("i2", None, 2, [300, 310, 305]), "m": 512},
        made("t3", "addsub", 1, [40, 40, 40], 156.0),
        made("t3", "addsub", 2, [70, 71, 72]),
        made("t3", "dot", 1, [11, 12, 13], 541.0),
        made("t3", "dot", 2, [70, 72, 71]),
        {**made("t3", None, 2, [310, 320, 330]), "m": 512},
    ]


def test_the_default_stands_beside_the_fastest_other_kernel(records):
    text = tiers_page.summary(records)
    assert (
        "| `avx2`, 1 thread | **t3 addsub** | 40.0 | 9.5 | i2 dot: 50.0"
        " | **faster: 1.25 (1.10-1.50)** |" in text
    )
    assert "| `avx2`, 2 threads | **t3 addsub** | 71.0 | 9.5 | t3 dot: 71.0 | alike: 1.00" in text


def test_every_kernel_is_there_and_the_taken_ones_are_bold(records):
    lines = tiers_page.summary(records).splitlines()
    gemv = "| `avx2` | 57.0 / 20.0 | **54.0 / 50.0** | **71.0 / 40.0** | 71.0 / 12.0 |"
    assert gemv in lines
    assert lines[lines.index(gemv) - 2] == (
        "| Gw/s, 2 threads / 1 thread | i2 addsub | i2 dot | t3 addsub | t3 dot |"
    )
    assert "| `avx2` | 305 | **320** |" in lines
    assert "| 10^9 products/s, 512 tokens, 2 threads | i2 | t3 |" in lines


def test_a_family_that_is_taken_though_it_was_slower_is_named(records):
    text = tiers_page.summary(records)
    assert "- `avx2`, 2 threads: i2 addsub is faster than i2 dot: 1.04 (1.04-1.09)" in text
    assert text.count(" is faster than ") == 1
    even = [r for r in records if r["packing"] == "t3"]
    assert "Of no packing was the other family faster" in tiers_page.summary(even)


def test_only_rows_that_were_counted_have_instructions(records):
    above = [{**r, "isa": "amx", "instructions_per_1000_weights": None} for r in records]
    text = tiers_page.summary([*above, *records])
    counts = text[text.index("instructions per 1,000") :]
    assert counts.splitlines()[2:] == ["| `avx2` | 300 | 174 | 156 | 541 |"]
    assert "not counted" in tiers_page.summary(above)


def test_the_page_has_the_newest_record_of_each_machine_the_last_first(records, tmp_path):
    assert tiers_page.machines(tmp_path) == []
    measured = [("B", "2026-01-01"), ("A", "2026-03-03"), ("B", "2026-02-02")]
    for at, (cpu, date) in enumerate(measured):
        changed = [{**record, "cpu": f"{cpu} CPU", "date": date} for record in records]
        (tmp_path / f"{at}.json").write_text(json.dumps(changed))
    texts = [tiers_page.part(found, []) for found in tiers_page.machines(tmp_path)]
    for text, (cpu, date) in zip(texts, measured[1:], strict=True):
        start = f"### {cpu} CPU\n\n4 cores, {date}, commit 0123456789ab; medians of 3 rounds"
        assert text.startswith(start)
        assert text.endswith(tiers_page.summary(records))


def test_kernels_of_a_packing_read_one_matrix_after_the_other(monkeypatch):
    calls = []

    def noted(packed, packing, n, k, codes, family, isa, num_threads):
        calls.append((packed.ctypes.data, packing, n, k, codes.shape, family, isa, num_threads))

    bed = Bed(SHORT, threads=2)
    runs = bed.runs("scalar")
    monkeypatch.setattr(_core, "ternary_gemv", noted)
    wanted = [kernel for kernel in runs if kernel.family]
    for kernel in wanted:
        assert runs[kernel]() > 0
    assert [(c[1], c[5], c[7]) for c in calls] == [
        (p, f, t) for p in _core.layouts() for f in FAMILIES for t in (1, 2)
    ]
    assert len({address for address, *_ in calls}) == len(calls)
    assert {call[2:5] + call[6:7] for call in calls} == {(128, 256, (256,), "scalar")}


def test_a_run_lasts_and_tells_the_rate_of_all_its_work(monkeypatch):
    clock = iter([0.0, 0.5, 1.5, 2.5])
    monkeypatch.setattr(tiers.time, "perf_counter", lambda: next(clock))
    rates = iter([1.0, 2.0, 4.0])
    assert lasting(lambda: next(rates), seconds=2)() == pytest.approx(3 / (1 + 1 / 2 + 1 / 4))


def test_unknown_rows_are_refused_with_the_choices():
    with pytest.raises(SystemExit, match=r"^-k: expected rows of .*scalar, got 'avx9'$"):
        wanted_rows("scalar,avx9")
    assert wanted_rows("scalar") == ["scalar"]
    assert wanted_rows("") == runtime.available_isas()


def test_a_record_is_of_all_rows(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tiers.py", "--record", "-k", "scalar"])
    with pytest.raises(SystemExit):
        tiers.main()
    assert "--record: a record is of all rows" in capsys.readouterr().err


def test_records_hold_what_was_measured_and_what_the_dispatch_table_takes(
    monkeypatch, capsys, tmp_path
):
    def missing(program):
        return None if program == "valgrind" else program

    best, out = runtime.available_isas()[0], tmp_path / "out.json"
    monkeypatch.setattr(instructions.shutil, "which", missing)
    monkeypatch.setattr(sys, "argv", ["tiers.py", "--short", "-k", best, "--json", str(out)])
    tiers.main()
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert printed.startswith(
        "instructions are not counted: valgrind is missing: apt install valgrind\n"
    )
    assert tiers_page.summary(found) in printed
    assert {r["packing"] for r in found} == set(_core.layouts())
    assert {(r["family"], r["m"]) for r in found} == {("addsub", 1), ("dot", 1), (None, 4)}
    for record in found:
        size = _core.packed_bytes(record["packing"], record["n"], record["k"])
        seconds = record["m"] * record["n"] * record["k"] / record["giga_weights_per_s"] / 1e9
        assert record["gb_per_s"] == pytest.approx(size / seconds / 1e9)
        assert record["instructions_per_1000_weights"] is None
        assert (record["isa"], record["commit"] is not None) == (best, True)
    assert_defaults_are_those_of_the_dispatch_table(found)


def assert_defaults_are_those_of_the_dispatch_table(found):
    for record in found:
        if record["isa"] in runtime.available_isas():
            with row(record["isa"]):
                assert record["auto_packing"] == runtime.auto_packing()
                assert record["auto_family"] == runtime.gemv_family(record["packing"])


def test_defaults_on_the_page_are_those_of_the_dispatch_table():
    measured = tiers_page.machines()
    for i, records in enumerate(measured):
        section = PAGE.split(f"### {records[0]['cpu']}\n")[1].split("\n### ")[0]
        newer = {(r["isa"], r["packing"]) for found in measured[:i] for r in found}
        for record in records:
            key = record["isa"], record["packing"]
            if key[0] in runtime.available_isas():
                with row(key[0]):
                    now = runtime.gemv_family(key[1])
                    assert record["auto_packing"] == runtime.auto_packing()
                if record["auto_family"] != now:  # the page says so, and a newer record shows it
                    assert f"`{key[0]}` has come to take {key[1]} {now}" in section
                    assert key in newer


def test_what_changed_since_a_record_is_what_newer_ones_show(records):
    dot = [{**r, "auto_family": "dot"} for r in records if r["packing"] == "t3"]
    elsewhere = [{**r, "isa": "sse41"} for r in dot]
    said = "\n\nSince this record `avx2` has come to take t3 dot."
    assert tiers_page.changed_since(records, [dot, records]) == said
    assert tiers_page.changed_since(records, [records, dot]) == ""
    assert tiers_page.changed_since(records, [elsewhere]) == ""
    assert tiers_page.changed_since(records, []) == ""


@pytest.mark.parametrize(
    ("isa", "rows"), [("neon", "`neon`"), ("neondot", "`neondot`, `neoni8mm`")]
)
def test_defaults_of_arm_on_the_page_are_those_of_the_source(isa, rows):
    source = (ROOT / "csrc" / "kernels" / isa / "kernels.cpp").read_text(encoding="utf-8")
    (packing,) = re.findall(r"auto_packing = Packing::k(\w+);", source)
    families = dict(re.findall(r"auto_family\[k(\w+)\] = GemvFamily::k(\w+);", source))
    default = f"{packing.lower()} {families.get(packing, 'Dot').lower()}"
    assert f"| {rows} | {default} | [{isa}/kernels.cpp]" in PAGE


def test_counts_belong_to_the_calls_in_their_order():
    written = "avx2 i2 addsub\nscalar i2 dot\n"
    found = by_call(written, "totals: 30\nfn=(1)\ntotals: 50\ntotals: 0\n")
    assert found == {("avx2", "i2", "addsub"): 30, ("scalar", "i2", "dot"): 50}
    for counts in ("totals: 30\ntotals: 0\n", "totals: 30\ntotals: 0\ntotals: 0\n"):
        with pytest.raises(NotCountedError, match="expected counts of 2 calls"):
            by_call(written, counts)


def test_every_kernel_of_the_rows_that_valgrind_knows_is_counted():
    n, k = 128, 240
    try:
        counts = count_instructions(n, k)
    except NotCountedError as why:
        pytest.skip(str(why))
    rows = {isa for isa, _, _ in counts}
    assert "scalar" in rows
    assert rows <= set(runtime.available_isas())
    assert set(counts) == {(r, p, f) for r in rows for p in _core.layouts() for f in FAMILIES}
    for (isa, packing, _), count in counts.items():
        loads = _core.packed_bytes(packing, n, k) / (1 if isa == "scalar" else 64)
        assert loads < count < 100 * n * k
