"""Measure each kernel alone: GB/s and giga-weights/s, beside the roofline of the same run.

    python benchmarks/bench_kernels.py            # every row, packing, shape and thread count
    python benchmarks/bench_kernels.py -k "t5 and avx512vbmi and memory" --record

The timing is pytest-benchmark's; options that are not known here are pytest's. A GEMV reads its
matrix from a cache (one matrix again and again) or from memory (the next of so many that no cache
holds them). Its look-up tables are built at every call, which a model does once for several
matrices. The limit of a GEMV is the roofline, which reads as many bytes from the same place with
the same threads; that of a GEMM a loop of its instructions on registers alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_model import write_record
from matrix_stack import matrices, memory_bytes, random_codes
from numpy.typing import NDArray

from bitinfer import _core, runtime
from bitinfer.bench import Roofline
from bitinfer.machine import machine_facts

HERE = Path(__file__).resolve().parent
SHAPES = {"qkv": (2560, 2560), "gate-up": (6912, 2560), "down": (2560, 6912)}  # of 2B-4T, (N, K)
GEMM_TOKENS = (32, 512)
SHORT_SHAPES = {"short": (64, 256)}
SHORT_TOKENS = (4,)
SHORT_BYTES = 1 << 20
COLUMNS = ("kernel", "isa", "shape", "threads", "from", "us", "GB/s", "of limit", "Gweights/s")
PEAK_READS = 5


class Options:
    """pytest's plugin for what only this file knows."""

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """``--short``: small matrices, to see that the benchmark works."""
        parser.addoption("--short", action="store_true")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize by what this machine can run."""
    short = metafunc.config.getoption("--short", False)
    choices: dict[str, list[Any]] = {  # the first varies slowest: matrices and rooflines are kept
        "place": ["cache", "memory"],
        "shape": list(SHORT_SHAPES if short else SHAPES),
        "packing": list(_core.layouts()),
        "threads": sorted({1, runtime.num_threads()}),
        "isa": runtime.available_isas(),
        "family": ["addsub", "dot"],
        "tokens": SHORT_TOKENS if short else GEMM_TOKENS,
    }
    for name, values in choices.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values)


kept_matrices = lru_cache(maxsize=1)(matrices)


@lru_cache(maxsize=1)
def roofline(num_bytes: int, threads: int) -> Roofline:
    """Kept, so that its best read so far counts."""
    return Roofline(num_bytes, threads)


def test_gemv(
    benchmark: Any,
    request: pytest.FixtureRequest,
    isa: str,
    packing: str,
    family: str,
    shape: str,
    threads: int,
    place: str,
) -> None:
    """One vector of activations."""
    n, k = (SHAPES | SHORT_SHAPES)[shape]
    short = request.config.getoption("--short", False)
    from_memory = SHORT_BYTES if short else memory_bytes()
    pool = kept_matrices(packing, n, k, from_memory if place == "memory" else 0)
    turns = cycle(pool)
    codes = random_codes(1, k)[0]

    def step() -> NDArray[np.int32]:
        return _core.ternary_gemv(
            next(turns), packing, n, k, codes, family, isa, num_threads=threads
        )

    benchmark(step)
    kernel = f"ternary_gemv_{family}_i8_{packing}_i32"
    line = roofline(len(pool) * pool[0].size, threads)
    facts = {"kernel": kernel, "isa": isa, "packing": packing, "n": n, "k": k, "m": 1}
    facts |= {"shape": shape, "threads": threads, "place": place, "bytes": pool[0].size}
    _note(benchmark, facts, line)


def test_gemm(
    benchmark: Any, isa: str, packing: str, shape: str, threads: int, tokens: int
) -> None:
    """A chunk of a prompt, the matrix in a cache."""
    n, k = (SHAPES | SHORT_SHAPES)[shape]
    (packed,) = kept_matrices(packing, n, k, 0)
    codes = random_codes(tokens, k)
    benchmark(_core.ternary_gemm, packed, packing, n, k, codes, isa, threads)
    kernel = f"ternary_gemm_i8_{packing}_i32"
    peak = statistics.median(_core.multiply_peak(isa, threads) for _ in range(PEAK_READS)) / 1e9
    facts = {"kernel": kernel, "isa": isa, "packing": packing, "n": n, "k": k, "m": tokens}
    facts |= {"shape": shape, "threads": threads, "place": "cache", "bytes": packed.size}
    facts["peak_giga_products_per_s"] = peak
    _note(benchmark, facts, roofline(packed.size, threads))


def _note(benchmark: Any, facts: dict[str, Any], line: Roofline) -> None:
    """Add the facts and rates of a measured kernel to pytest-benchmark's own figures."""
    line.read()
    seconds = benchmark.stats.stats.median
    rates = {
        "median_s": seconds,
        "gb_per_s": facts["bytes"] / seconds / 1e9,
        "roofline_gb_per_s": line.gb_per_s,
        "giga_weights_per_s": facts["n"] * facts["k"] * facts["m"] / seconds / 1e9,
    }
    benchmark.extra_info.update(facts | rates)


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Run pytest on this file with more arguments; what it measured, in its order."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        code = pytest.main(
            [
                *("-q", "-p", "no:cacheprovider", __file__),
                *("--benchmark-quiet", f"--benchmark-json={out}", "--benchmark-disable-gc"),
                *("--benchmark-min-rounds=3", "--benchmark-max-time=0.2", *arguments),
            ],
            plugins=[Options()],
        )
        if code:
            raise SystemExit(int(code))
        found = json.loads(out.read_text())
    return [{**run["extra_info"], "rounds": run["stats"]["rounds"]} for run in found["benchmarks"]]


def table(runs: list[dict[str, Any]]) -> str:
    """One line a kernel, fastest first within each shape, place and number of threads."""
    runs = sorted(
        runs,
        key=lambda r: (r["m"], r["shape"], r["place"], r["threads"], -r["giga_weights_per_s"]),
    )
    rows = [COLUMNS]
    for run in runs:
        gemv = run["m"] == 1  # memory does not bound a GEMM
        peak = run.get("peak_giga_products_per_s")
        share = run["gb_per_s"] / run["roofline_gb_per_s"]
        if not gemv:
            share = run["giga_weights_per_s"] / peak if peak else 0.0
        row = (
            *(run["kernel"], run["isa"], f"{run['shape']} {run['m']}x{run['n']}x{run['k']}"),
            *(str(run["threads"]), run["place"], f"{run['median_s'] * 1e6:.0f}"),
            *(f"{run['gb_per_s']:.1f}" if gemv else "", f"{share:.0%}" if share else ""),
            f"{run['giga_weights_per_s']:.1f}",
        )
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < 3 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--record", action="store_true", help="add a record to records/kernels")
    options, rest = parser.parse_known_args()
    facts = machine_facts(HERE)
    runs = [{**run, **facts} for run in measure(rest)]
    print(table(runs))
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    if options.record:
        print(write_record(runs, "kernels"))


if __name__ == "__main__":
    main()
