"""benchmarks/bench_kernels.py in its short form: the fields are there, and the rates add up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitinfer import _core, runtime

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "bench_kernels.py"
# pytest-xdist would switch the measuring off, if it is what runs this test.
ENVIRONMENT = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_XDIST")}
QUICK = ["--benchmark-max-time=0.001", "--benchmark-min-rounds=1", "--benchmark-warmup=off"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every kernel of the best row, with one thread."""
    isa = runtime.available_isas()[0]
    out = tmp_path_factory.mktemp("kernels") / "out.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--short", *QUICK, "-k", isa, "--json", out],
        env={**ENVIRONMENT, "BITINFER_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert {run["isa"] for run in found} == {isa}
    assert all(run["kernel"] in done.stdout for run in found)
    return found


def test_every_kernel_of_the_row_is_measured(runs):
    expected = {f"ternary_gemm_i8_{p}_i32" for p in _core.layouts()}
    expected |= {
        f"ternary_gemv_{family}_i8_{p}_i32" for p in _core.layouts() for family in ("addsub", "dot")
    }
    assert {run["kernel"] for run in runs} == expected
    assert {(run["m"] > 1, run["place"]) for run in runs} == {
        (False, "cache"),
        (False, "memory"),
        (True, "cache"),
    }


def test_rates_are_bytes_and_weights_by_the_median_time(runs):
    for run in runs:
        assert run["bytes"] == _core.packed_bytes(run["packing"], run["n"], run["k"])
        assert run["median_s"] > 0
        assert run["gb_per_s"] == pytest.approx(run["bytes"] / run["median_s"] / 1e9)
        weights = run["m"] * run["n"] * run["k"]
        assert run["giga_weights_per_s"] == pytest.approx(weights / run["median_s"] / 1e9)
        assert run["roofline_gb_per_s"] > 0
        assert (run["threads"], run["rounds"] > 0) == (1, True)


def test_runs_name_the_machine_as_every_record_does(runs):
    for run in runs:
        assert {"commit", "date", "cpu", "cores", "memory", "compiler", "system"} <= run.keys()
