"""bitinfer doctor: complete, honest about what was measured, safe to paste."""

import json
import os
import shutil
from pathlib import Path

import pytest
from bench_records import make_record
from click.testing import CliRunner

from bitinfer import default_model, doctor, runtime
from bitinfer.cli import main
from bitinfer.doctor import meaning

RATES = [{"threads": 1, "bytes": 1 << 28, "gb_per_s": 18.0}]
RATES += [{"threads": 2, "bytes": 1 << 28, "gb_per_s": 28.0}]


@pytest.fixture
def quick(monkeypatch):
    """No measurements: they take seconds and are those of `bench`."""
    monkeypatch.setattr(doctor, "_bandwidth", lambda threads, facts: RATES)
    monkeypatch.setattr(doctor, "bench", lambda engine, **options: [make_record(900.0)])


def run(*arguments, **options):
    return CliRunner().invoke(main, ["doctor", *arguments], **options)


def diagnosis(*arguments, **options):
    done = run("--json", *arguments, **options)
    return json.loads(done.stdout), done


def test_the_whole_examination_of_the_embedded_model():
    facts, done = diagnosis()
    assert done.exit_code == 0, done.output
    assert facts["problems"] == []
    assert [row["name"] for row in facts["isas"] if row["usable"]] == runtime.available_isas()
    assert [row["name"] for row in facts["isas"] if row["active"]] == [runtime.active_isa()]
    assert all(row["self_test"] == "" for row in facts["isas"] if row["usable"])
    assert [rate["threads"] for rate in facts["bandwidth"]] in ([1], [1, runtime.num_threads()])
    assert all(rate["gb_per_s"] > 0 for rate in facts["bandwidth"])
    assert facts["model"]["ok"]
    assert facts["model"]["name"] == "tales-14m"
    assert facts["model"]["tokens_per_s"] > 0
    assert facts["versions"]["bitinfer"] == runtime.version()


def test_report_fits_80_columns_and_names_what_counts(quick):
    done = run()
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for text in ("versions", "kernels", "memory", "caches", "reads", "What it means"):
        assert f"\n{text}" in f"\n{done.stdout}"
    for isa in runtime.available_isas():
        assert f"{isa:<11} self-test ok" in done.stdout


def test_nothing_private_is_printed(quick, tmp_path, monkeypatch):
    home = tmp_path / "home" / "alice"
    (home / "models").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    folder = home / "models" / "tales"
    shutil.copytree(default_model(), folder)
    (folder / "config.json").write_text("{")
    for arguments in ([], ["--json"], [str(folder)], [str(folder), "--json"]):
        done = run(*arguments)
        for private in (str(tmp_path), "alice", str(Path.cwd()), os.uname().nodename):
            assert private not in done.stdout, private


def test_a_broken_model_is_a_problem_and_the_rest_is_told(quick, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(default_model(), folder)
    packed = folder / "bitinfer.safetensors"
    packed.write_bytes(packed.read_bytes()[:-5])
    facts, done = diagnosis(str(folder))
    assert done.exit_code == 1
    (problem,) = facts["problems"]
    assert problem.startswith("model: broken/bitinfer.safetensors: ")
    assert facts["model"] == {"name": "broken", "ok": False}
    assert len(facts["meaning"]) >= 1
    assert "Problems\n- model: broken" in run(str(folder)).stdout


@pytest.mark.filterwarnings("default")
def test_what_was_tuned_is_named_without_its_place(quick, tmp_path, monkeypatch):
    path = tmp_path / "alice" / "tuning.json"
    monkeypatch.setenv("BITINFER_TUNING", str(path))
    assert "\ntuning      none: 'bitinfer tune MODEL'" in run().stdout
    path.parent.mkdir()
    path.write_text("{")
    done = run()
    assert done.exit_code == 0
    assert "\ntuning      tuning.json is damaged, it is not used" in done.stdout
    assert "alice" not in done.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [("BITINFER_ISA", "mmx"), ("BITINFER_GEMV", "both"), ("BITINFER_NUM_THREADS", "many")],
)
def test_a_wrong_environment_is_a_problem_not_the_end(tmp_path, name, value):
    code = (
        "import json, sys; from bitinfer import doctor, default_model\n"
        f"doctor._bandwidth = lambda threads, facts: {RATES}\n"
        "facts = doctor.diagnose(default_model())\n"
        "print(json.dumps(facts['problems'] + [facts['environment'], facts['model']['ok']]))"
    )
    done = run_python(code, tmp_path, **{name: value})
    problem, environment, ok = json.loads(done)
    assert problem.startswith(f"{name}: ")
    assert value in problem
    assert environment == {name: value}
    assert ok


def run_python(code, folder, **environment):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_that_fail_their_self_test_are_a_problem(quick, monkeypatch):
    wrong = runtime.available_isas()[0]
    monkeypatch.setattr(runtime, "self_test", lambda isa: "gemm i2: 1" * (isa == wrong))
    done = run()
    assert done.exit_code == 1
    assert f"{wrong:<11} self-test FAILED: gemm i2: 1" in done.stdout
    assert f"- kernels of {wrong} are wrong here" in done.stdout


def test_rows_that_cannot_run_say_why(quick, monkeypatch):
    row = {"name": "amx", "usable": False, "reason": "lacks the operating system's support of amx"}
    report = runtime.isa_report()
    monkeypatch.setattr(runtime, "isa_report", lambda: [row, *report])
    assert "amx         lacks the operating system's support of amx" in run().stdout


FACTS = {
    "packing": "t5",
    "cpu": {"cores": 4, "quota": None},
    "memory": {"cgroup_limit": None, "swap_total": 0, "swap_free": 0},
    "caches": [{"level": 2, "bytes": 2 << 20, "shared_by": 1}],
    "system": {"governor": None, "numa_nodes": 1, "load": 0.0},
    "bandwidth": RATES,
    "model": {
        "name": "some-2b",
        "ok": True,
        "tokens_per_s": 30.0,
        "bytes_per_token": 750_000_000,
        "roofline_gb_per_s": 30.0,
    },
}


def test_the_bound_is_the_measured_bandwidth_by_the_models_bytes():
    bound, reached = meaning(FACTS)
    assert "reads 28.0 GB/s with 2 threads" in bound
    weights, head = 2_084_044_800, 128256 * 2560
    num_bytes = weights * runtime.bits_per_weight("t5") / 8 + head
    assert f"at most {28e9 / num_bytes:.0f} tokens/s" in bound
    assert "some-2b was measured here: it decodes 30.0 tokens/s, 75% of the 40" in reached


def test_a_model_in_a_cache_is_no_measure_of_memory():
    small = {**FACTS["model"], "bytes_per_token": 1 << 20, "tokens_per_s": 3000.0}
    _, sentence = meaning({**FACTS, "model": small})
    assert "it decodes 3,000.0 tokens/s" in sentence
    assert "says nothing about larger models" in sentence
    assert "%" not in sentence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"system": {**FACTS["system"], "governor": "powersave"}}, "governor is powersave"),
        ({"system": {**FACTS["system"], "numa_nodes": 2}}, "Memory lies at 2 nodes"),
        ({"system": {**FACTS["system"], "load": 2.5}}, "Other programs were running (load 2.5)"),
        ({"cpu": {"cores": 4, "quota": 1.5}}, "allows 1.5 CPUs"),
        ({"memory": {**FACTS["memory"], "cgroup_limit": 2 * 10**9}}, "allows 2.0 GB of memory"),
        (
            {"memory": {**FACTS["memory"], "swap_total": 100, "swap_free": 20}},
            "half of the swap is used",
        ),
    ],
)
def test_what_slows_a_machine_down_is_said(changes, said):
    assert said in meaning({**FACTS, **changes})[-1]
    assert len(meaning(FACTS)) == 2
