"""bitinfer bench: records hold what they promise, and the counts in them add up."""

import csv
import io
import json
import re
from functools import partial

import pytest
from click.testing import CliRunner

from bitinfer import bench as benchmark, default_model, runtime
from bitinfer.bench import read_records
from bitinfer.bench.tables import markdown, record_rows
from bitinfer.cli import main
from bitinfer.engine import Engine

FIELDS = {
    "phase": str,
    "tokens": int,
    "prompt_tokens": int,
    "generated_tokens": int,
    "batch": int,
    "depth": int,
    "threads": int,
    "tokens_per_s": float,
    "tokens_per_s_min": float,
    "tokens_per_s_max": float,
    "tokens_per_s_runs": list,
    "bytes_per_token": int,
    "bytes_by_part": dict,
    "gb_per_s": float,
    "roofline_gb_per_s": float,
    "energy": str,
    "isa": str,
    "packing": str,
    "kernel": str,
    "head": str,
    "kv_cache": str,
    "ffn": str,
    "weights": str,
    "model": str,
    "shape": dict,
    "warmup": int,
    "repeats": int,
    "date": str,
    "cpu": str,
    "cores": int,
    "memory": int,
    "compiler": str,
    "system": str,
}
QUICK = ["-p", "20", "-n", "4", "-r", "3", "-t", "1"]


def run(*arguments):
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.fixture(scope="module")
def engine():
    return Engine.load(default_model(), num_threads=1, context_length=64)


def test_json_is_a_list_of_complete_records():
    done = run(*QUICK, "--json", "-")
    assert done.exit_code == 0, done.output
    prefill, decode = json.loads(done.stdout)
    for record in (prefill, decode):
        assert {name: type(record[name]) for name in FIELDS} == FIELDS
        assert record["commit"] is None or isinstance(record["commit"], str)
        rates = [record[f"tokens_per_s{end}"] for end in ("_min", "", "_max")]
        assert 0 < rates[0] <= rates[1] <= rates[2]
        assert sorted(record["tokens_per_s_runs"]) == rates  # of three runs
        assert (record["joules_per_token"] is None) == record["energy"].startswith("not available")
        expected = record["bytes_per_token"] * record["tokens_per_s"] / 1e9
        assert record["gb_per_s"] == pytest.approx(expected)
        assert sum(record["bytes_by_part"].values()) == record["bytes_per_token"]
        assert record["roofline_gb_per_s"] > 0
        assert (record["threads"], record["repeats"], record["warmup"]) == (1, 3, 1)
        assert record["isa"] == runtime.active_isa()
    assert (prefill["phase"], prefill["tokens"]) == ("prefill", 20)
    assert (decode["phase"], decode["tokens"]) == ("decode", 4)
    packing = decode["packing"]
    assert decode["kernel"] == f"ternary_gemv_{runtime.gemv_family(packing)}_i8_{packing}_i32"
    assert prefill["kernel"] == f"ternary_gemm_i8_{packing}_i32"


def test_json_goes_to_a_file(tmp_path):
    assert run(*QUICK, "--json", str(tmp_path / "out.json")).exit_code == 0
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2


@pytest.mark.parametrize("columns", [20, 80])
def test_table_fits_its_columns_and_names_every_test(columns, monkeypatch):
    monkeypatch.setattr("bitinfer.cli.table._WIDTH_OF_A_PIPE", columns)
    done = run(*QUICK, "-pg", "7,2")
    assert done.exit_code == 0, done.output
    assert all(len(line) <= columns for line in done.stdout.splitlines())
    for test in ("pp20", "tg4", "pp7+tg2"):
        assert re.search(rf"^ *{re.escape(test)} +[\d.]+", done.stdout, re.MULTILINE), test


def test_every_length_is_measured_with_every_thread_count_and_depth():
    arguments = ["-p", "5,9", "-n", "2", "-pg", "4,3", "-d", "0,30", "-t", "2,1", "-r", "1"]
    records = json.loads(run(*arguments, "--json", "-").stdout)
    tests = [(5, 0), (9, 0), (0, 2), (4, 3)]
    keys = ("threads", "depth", "prompt_tokens", "generated_tokens")
    assert [tuple(record[key] for key in keys) for record in records] == [
        (threads, depth, *test) for threads in (2, 1) for depth in (0, 30) for test in tests
    ]
    for record in records:
        assert record["tokens"] == record["prompt_tokens"] + record["generated_tokens"]


def test_markdown_and_csv_hold_the_same_speeds_as_the_records(tmp_path):
    done = run(*QUICK, "--json", str(tmp_path / "r.json"), "-o", "csv")
    records = json.loads((tmp_path / "r.json").read_text())
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [float(row["tokens_per_s"]) for row in rows] == [r["tokens_per_s"] for r in records]
    assert json.loads(rows[0]["shape"]) == records[0]["shape"]
    assert set(rows[0]) == set(records[0])
    text = markdown(record_rows(read_records(tmp_path / "r.json")))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert lines[0][:4] == ["model", "packing", "test", "threads"]
    assert re.fullmatch(r"-+:?", lines[1][4])
    for line, record in zip(lines[2:], records, strict=True):
        row = dict(zip(lines[0], line, strict=True))
        parts = record["bytes_by_part"]
        assert row["tokens/s"] == f"{record['tokens_per_s']:.1f}"
        assert row["weights"] == f"{(parts['ternary'] + parts['float']) / 1e6:.2f}"
        assert (row["head"], row["KV"]) == tuple(
            f"{parts[part] / 1e6:.2f}" for part in ("head", "kv")
        )
        assert row["roofline"] == f"{record['gb_per_s'] / record['roofline_gb_per_s']:.0%}"


def test_a_phase_of_0_tokens_is_left_out():
    (record,) = json.loads(run("-p", "0", "-n", "2", "-r", "1", "--json", "-").stdout)
    assert record["phase"] == "decode"


@pytest.mark.parametrize(
    "arguments",
    [
        ("-p", "0", "-n", "0"),
        ("-p", "5000"),
        ("-n", "1024"),
        ("-p", "512", "-d", "512"),
        ("-pg", "1000,24"),
        ("no-such-folder",),
    ],
)
def test_impossible_measurement_is_one_line_and_exit_code_1(arguments):
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", ["", "1,", "1,x", "-1", "1.5", "²", "9999999999"])
@pytest.mark.parametrize("option", ["-p", "-t", "-d", "-pg", "-b"])
def test_a_bad_list_of_numbers_is_a_usage_error(option, value):
    done = run(option, value)
    assert done.exit_code == 2
    assert repr(value)[1:-1] in done.stderr
    assert len(done.stderr.splitlines()) == 1


def forwarded(monkeypatch, engine, **options):
    """(cache length before, tokens) of every forward step of a measurement."""
    calls = []
    forward, decode = Engine.forward, Engine.decode

    def counted(self, token_ids, caches, **rest):
        calls.extend((c.length, len(ids)) for ids, c in zip(token_ids, caches, strict=True))
        return forward(self, token_ids, caches, **rest)

    def decoded(self, token_id, cache, out, **rest):
        calls.append((cache.length, 1))
        return decode(self, token_id, cache, out, **rest)

    monkeypatch.setattr(Engine, "forward", counted)
    monkeypatch.setattr(Engine, "decode", decoded)
    benchmark.bench(engine, **{"repeats": 1, "warmup": 0, **options})
    monkeypatch.undo()
    return calls


def test_each_case_runs_every_token_it_counts(engine, monkeypatch):
    run = partial(forwarded, monkeypatch, engine)
    assert run(prompts=[], generated=[7]) == [(i, 1) for i in range(8)]  # a prompt of one first
    assert run(prompts=[9], generated=[]) == [(0, 9)]
    assert run(prompts=[], generated=[], pairs=[(9, 2)]) == [(0, 9), (9, 1), (10, 1)]


def test_a_depth_is_filled_once_and_trimmed_back_to(engine, monkeypatch):
    calls = forwarded(monkeypatch, engine, prompts=[4], generated=[1], depths=[0, 5, 8], repeats=2)
    each = {depth: [(depth, 4), (depth, 1), (depth + 1, 1)] * 2 for depth in (0, 5, 8)}
    # Filling goes on from what the last run has left where that is shorter.
    assert calls == [*each[0], (2, 3), *each[5], (7, 1), *each[8]]


def test_the_engines_threads_are_restored(engine):
    records = benchmark.bench(engine, prompts=[3], generated=[], threads=[2, 1, 3], repeats=1)
    assert [record.threads for record in records] == [2, 1, 3]
    assert engine.num_threads == 1


def test_bytes_per_token_count_the_weights_and_the_mean_context(engine):
    read = engine.bytes_per_token()
    bench = partial(benchmark.bench, engine, depths=[6], repeats=1, warmup=0)
    (decode,) = bench(prompts=[], generated=[8])
    weights = {part: read[part] for part in ("ternary", "float", "head")}
    contexts = [6 + 1 + i for i in range(1, 9)]  # positions that each of the 8 tokens attends to
    mean = sum(contexts) / len(contexts)
    assert decode.bytes_by_part == {**weights, "kv": round(read["kv_per_position"] * mean)}
    engine.prefill_chunk, before = 4, engine.prefill_chunk
    (prefill,) = bench(prompts=[10], generated=[])
    (both,) = bench(prompts=[], generated=[], pairs=[(10, 2)])
    engine.prefill_chunk = before
    cache = (6 + 4 + 6 + 8 + 6 + 10) * read["kv_per_position"]
    times = {"ternary": 3, "float": 3, "head": 1}
    once = {part: times[part] * read[part] for part in times}
    assert prefill.bytes_by_part == {p: round(n / 10) for p, n in {**once, "kv": cache}.items()}
    cache += (17 + 18) * read["kv_per_position"]
    twice = {part: once[part] + 2 * read[part] for part in times}
    assert both.bytes_by_part == {p: round(n / 12) for p, n in {**twice, "kv": cache}.items()}


def test_a_batch_shares_the_weights_and_not_the_cache(engine, monkeypatch):
    calls = forwarded(monkeypatch, engine, prompts=[], generated=[2], batches=[3], depths=[5])
    # The cache is filled, the prompt of one is run once, then each step takes all three on.
    assert calls == [(0, 5), (5, 1), *[(6, 1)] * 3, *[(7, 1)] * 3]
    bench = partial(benchmark.bench, engine, prompts=[], generated=[2], repeats=1, warmup=0)
    one, three = bench(batches=[1, 3])
    assert (one.batch, three.batch, three.tokens) == (1, 3, 6)
    assert (one.test, three.test) == ("tg2", "tg2 x3")
    for part in ("ternary", "float", "head"):
        assert three.bytes_by_part[part] == round(one.bytes_by_part[part] / 3)
    assert three.bytes_by_part["kv"] == one.bytes_by_part["kv"]


@pytest.mark.parametrize("kv_cache", ["f32", "f16", "int8"])
def test_kv_bytes_are_those_of_the_caches_dtype(kv_cache):
    engine = Engine.load(default_model(), kv_cache=kv_cache, num_threads=1, context_length=64)
    cache = engine.new_cache(64)
    assert cache.dtype == kv_cache
    assert engine.bytes_per_token()["kv_per_position"] == cache.nbytes // 64


def test_the_command_measures_every_batch():
    arguments = ["-p", "6", "-n", "2", "-pg", "4,3", "-b", "1,3", "-r", "1", "-t", "1"]
    records = json.loads(run(*arguments, "--json", "-").stdout)
    assert [(r["prompt_tokens"], r["generated_tokens"], r["batch"]) for r in records] == [
        *((6, 0, 1), (0, 2, 1), (0, 2, 3), (4, 3, 1), (4, 3, 3))
    ]
    assert records[-1]["tokens"] == 4 + 3 * 3


class FakeCounter:
    """Two joules more at each reading; from the ``dies_at``-th on it gives nothing."""

    source = "two joules"

    def __init__(self, dies_at=100):
        self.readings = 0
        self.dies_at = dies_at

    def joules(self):
        self.readings += 1
        return 2.0 * self.readings if self.readings < self.dies_at else None

    def close(self):
        pass


def test_joules_per_token_are_those_between_two_readings(engine):
    (record,) = benchmark.bench(engine, prompts=[], generated=[4], energy=FakeCounter(), repeats=3)
    assert record.joules_per_token == pytest.approx(2 / 4)
    assert record.energy == "two joules"


def test_no_joules_are_told_where_one_reading_failed(engine):
    (record,) = benchmark.bench(engine, prompts=[], generated=[4], energy=FakeCounter(6), repeats=3)
    assert record.joules_per_token is None


def test_roofline_keeps_its_best_read():
    roofline = benchmark.Roofline(1 << 20, threads=1)
    rates = [roofline.read() for _ in range(4)]
    assert min(rates) > 0
    assert roofline.gb_per_s == max(rates)
