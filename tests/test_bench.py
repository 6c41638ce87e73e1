"""bitinfer bench: records hold what they promise, and the counts in them add up."""

import json

import pytest
from click.testing import CliRunner

from bitinfer import bench as benchmark, default_model, runtime
from bitinfer.cli import main
from bitinfer.engine import Engine

FIELDS = {
    "phase": str,
    "tokens": int,
    "threads": int,
    "tokens_per_s": float,
    "tokens_per_s_min": float,
    "tokens_per_s_max": float,
    "bytes_per_token": int,
    "gb_per_s": float,
    "roofline_gb_per_s": float,
    "isa": str,
    "packing": str,
    "kernel": str,
    "head": str,
    "kv_cache": str,
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
        expected = record["bytes_per_token"] * record["tokens_per_s"] / 1e9
        assert record["gb_per_s"] == pytest.approx(expected)
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


def test_table_fits_80_columns_and_names_both_phases():
    done = run(*QUICK)
    assert done.exit_code == 0, done.output
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "prefill" in done.stdout
    assert "decode" in done.stdout


def test_a_phase_of_0_tokens_is_left_out():
    (record,) = json.loads(run("-p", "0", "-n", "2", "-r", "1", "--json", "-").stdout)
    assert record["phase"] == "decode"


@pytest.mark.parametrize(
    "arguments", [("-p", "0", "-n", "0"), ("-p", "5000"), ("-n", "1024"), ("no-such-folder",)]
)
def test_impossible_measurement_is_one_line_and_exit_code_1(arguments):
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_decode_runs_every_token_it_counts(engine, monkeypatch):
    lengths = []
    forward = Engine.forward

    def counted(self, token_ids, caches, **options):
        lengths.extend(len(ids) for ids in token_ids)
        return forward(self, token_ids, caches, **options)

    monkeypatch.setattr(Engine, "forward", counted)
    benchmark.bench(engine, prompt_tokens=0, generated_tokens=7, repeats=1, warmup=0)
    assert lengths == [1] * 8  # the prompt of one, then seven
    lengths.clear()
    benchmark.bench(engine, prompt_tokens=9, generated_tokens=0, repeats=1, warmup=0)
    assert lengths == [9]


def test_bytes_per_token_count_the_weights_and_the_mean_context(engine):
    read = engine.bytes_per_token()
    (decode,) = benchmark.bench(engine, prompt_tokens=0, generated_tokens=8, repeats=1)
    weights = read["ternary"] + read["head"] + read["float"]
    contexts = [1 + i for i in range(1, 9)]  # positions that each of the 8 tokens attends to
    mean = sum(contexts) / len(contexts)
    assert decode.bytes_per_token == round(weights + read["kv_per_position"] * mean)
    engine.prefill_chunk, before = 4, engine.prefill_chunk
    (prefill,) = benchmark.bench(engine, prompt_tokens=10, generated_tokens=0, repeats=1)
    engine.prefill_chunk = before
    once = read["head"] + 3 * (read["ternary"] + read["float"])
    cache = (4 + 8 + 10) * read["kv_per_position"]
    assert prefill.bytes_per_token == round((once + cache) / 10)


def test_roofline_keeps_its_best_read():
    roofline = benchmark.Roofline(1 << 20, threads=1)
    roofline.read()
    first = roofline.gb_per_s
    for _ in range(3):
        roofline.read()
    assert roofline.gb_per_s >= first > 0
