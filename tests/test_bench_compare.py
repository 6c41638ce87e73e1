"""bitinfer bench compare, and the files of records that it reads."""

import json

import pytest
from bench_records import MACHINE, make_prefill, make_record
from click.testing import CliRunner

from bitinfer.bench import read_records, write_records
from bitinfer.bench.compare import compare
from bitinfer.cli import main
from bitinfer.errors import RecordError


def compare_files(tmp_path, old, new, *options):
    for name, records in (("old", old), ("new", new)):
        (tmp_path / f"{name}.json").write_text(write_records(records))
    files = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    return CliRunner().invoke(main, ["bench", "compare", *files, *options])


@pytest.mark.parametrize(
    ("speed", "spread", "verdict"),
    [(30, 0.1, "faster"), (15, 0.05, "slower"), (21, 0.1, "within the spread")],
)
def test_verdict_needs_runs_that_do_not_overlap(speed, spread, verdict):
    (pair,), unpaired = compare([make_record(20, spread=spread)], [make_record(speed)])
    assert pair.verdict == verdict
    assert pair.ratio == pytest.approx(speed / 20)
    assert pair.ratio_min == pytest.approx(speed * 0.9 / (20 * (1 + spread)))
    assert pair.ratio_max == pytest.approx(speed * 1.1 / (20 * (1 - spread)))
    assert unpaired == []


def test_one_run_alone_gives_no_verdict():
    (pair,), _ = compare([make_record(20)], [make_record(90, spread=0, repeats=1)])
    assert pair.verdict == "1 run: no spread"


def test_tests_are_matched_by_shape_length_depth_and_threads():
    old = [make_record(20), make_record(10, threads=1), make_prefill(100)]
    new = [make_prefill(110), make_record(9, depth=5), make_record(22)]
    pairs, unpaired = compare(old, new)
    assert [(p.test, p.new.tokens_per_s) for p in pairs] == [("tg128", 22), ("pp512", 110)]
    assert [(r.test, r.threads) for r in unpaired] == [("tg128", 1), ("tg128 @ d5", 2)]
    _, unpaired = compare([make_record()], [make_record(shape={"hidden_size": 64})])
    assert len(unpaired) == 2


def test_equal_settings_find_each_other_and_what_is_left_is_paired():
    old = [make_record(1, packing="t5"), make_record(2, packing="i2")]
    new = [make_record(4, packing="i2"), make_record(3, packing="t3")]
    pairs, _ = compare(old, new)
    assert [(p.old.tokens_per_s, p.new.tokens_per_s) for p in pairs] == [(1, 3), (2, 4)]
    assert pairs[0].differs == ("packing: t5, t3",)
    assert pairs[1].differs == ()


@pytest.mark.parametrize("fact", [{"cpu": "B CPU"}, {"cores": 8}, {"memory": 8 << 30}])
def test_another_machine_is_not_compared(tmp_path, fact):
    old, new = [make_record()], [make_record(machine={**MACHINE, **fact})]
    done = compare_files(tmp_path, old, new)
    assert done.exit_code == 1
    assert "not comparable" in done.stdout
    assert "1.00" not in done.stdout
    assert f"another machine: {next(iter(fact))}" in done.stderr


def test_a_kernel_that_keeps_more_memory_is_no_other_machine():
    new = make_record(machine={**MACHINE, "memory": MACHINE["memory"] - (1 << 20)})
    (pair,), _ = compare([make_record()], [new])
    assert not pair.obstacle


def test_table_says_what_differs_and_what_has_no_partner(tmp_path):
    new = [make_record(40, isa="avx512vbmi", machine={**MACHINE, "commit": "ffff"})]
    done = compare_files(tmp_path, [make_record(), make_prefill()], new)
    assert done.exit_code == 0
    assert "2.00  1.64-2.44  faster" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert done.stderr.splitlines() == [
        "note: differs: isa: avx2, avx512vbmi",
        "note: differs: commit: 0123456789ab, ffff",
        "note: only in one of the two: pp512 of some-2b",
    ]


def test_json_and_markdown(tmp_path):
    arguments = (tmp_path, [make_record()], [make_record(30)])
    (pair,) = json.loads(compare_files(*arguments, "-o", "json").stdout)
    assert (pair["test"], pair["ratio"], pair["verdict"]) == ("tg128", 1.5, "faster")
    text = compare_files(*arguments, "-o", "md").stdout
    assert [line.count("|") for line in text.splitlines()] == [11, 11, 11]
    assert "| 750.0 > 750.0 |" in text
    assert pair["new_bytes_by_part"] == make_record().bytes_by_part


def test_records_survive_a_file(tmp_path):
    records = [make_record(), make_prefill(joules_per_token=0.5)]
    (tmp_path / "r.json").write_text(write_records(records))
    assert read_records(tmp_path / "r.json") == records


def test_records_from_before_depths_are_read(tmp_path):
    flat = make_prefill().to_json()
    for name in ("prompt_tokens", "generated_tokens", "depth", "tokens_per_s_runs", "energy"):
        del flat[name]
    del flat["batch"], flat["bytes_by_part"], flat["weights"]
    (tmp_path / "r.json").write_text(json.dumps([flat]))
    (record,) = read_records(tmp_path / "r.json")
    assert (record.test, record.tokens_per_s_runs) == ("pp512", [])
    assert (record.batch, record.bytes_by_part, record.part_bytes("head")) == (1, {}, None)


GOOD = json.loads(write_records([make_record()]))[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"{}", "expected a list of records .* got dict"),
        (b"[]", "got an empty list"),
        (b"[3]", "record 0: expected an object"),
        (json.dumps([GOOD, {**GOOD, "cpu": 1} | {"threads": "two"}]), "record 1: threads: .*'two'"),
        (json.dumps([{**GOOD, "tokens_per_s": float("nan")}]), "tokens_per_s: .*nan"),
        (json.dumps([{**GOOD, "memory": "much"}]), "memory: .*'much'"),
        (json.dumps([{**GOOD, "shape": 5}]), "shape: .*5"),
        (json.dumps([{**GOOD, "bytes_by_part": 5}]), "bytes_by_part: .*5"),
        (json.dumps([{**GOOD, "bytes_by_part": {"kv": 1}}]), "bytes_by_part: .*'kv': 1"),
        (json.dumps([{k: v for k, v in GOOD.items() if k != "cpu"}]), "the field 'cpu'"),
    ],
)
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path, content, said):
    path = tmp_path / "r.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(RecordError, match=f"r.json: .*{said}"):
        read_records(path)


def test_a_missing_file_is_one_line(tmp_path):
    done = CliRunner().invoke(main, ["bench", "compare", "no.json", "no.json"])
    assert done.exit_code == 1
    assert done.stderr == "error: no.json: no such file or directory\n"
