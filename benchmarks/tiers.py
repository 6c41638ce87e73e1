"""Measure every kernel of every row: which one a row takes by default, and why.

    python benchmarks/tiers.py --record       # about 4 minutes and 2 GB of memory
    python benchmarks/tiers.py -k avx2,scalar

A GEMV reads the gate and up projections of one layer of the 2B-4T shape, as decode does, from so
many of them that no cache holds them. A GEMM is of a query projection and a chunk of a prompt. The
kernels of a row take turns (``turns.py``); what ``auto`` takes is asked of the dispatch table.
``tiers_page.py`` writes docs/kernels-by-tier.md of the record.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from engine_runs import products, row
from instructions import Call, NotCountedError, count_instructions
from matrix_stack import matrices, memory_bytes, random_codes
from random_model import SHAPES
from tiers_page import summary
from turns import Run, Turns, take_turns

from bitinfer import _core, runtime
from bitinfer.machine import machine_facts

SHAPE = "bitnet-2b-4t"
FAMILIES = ("addsub", "dot")
RUN_S = 0.18  # in which a tick of the system's clock, of one core in two, is below QUIET_SHARE


@dataclass(frozen=True)
class Sizes:
    """What is multiplied, and for how long at a time.

    Attributes:
        gemv: Rows and columns of gate and up together.
        gemm: Of a query projection.
        tokens: Of a GEMM.
        stack_bytes: Of all matrices that GEMVs read in turn.
        run_s: Of a run.
        rounds: In which the runs take turns.
    """

    gemv: tuple[int, int]
    gemm: tuple[int, int]
    tokens: int
    stack_bytes: int
    run_s: float
    rounds: int


@dataclass(frozen=True)
class Kernel:
    """What is measured of a row; a GEMM has no family."""

    packing: str
    family: str | None
    threads: int


def full_sizes() -> Sizes:
    """Those of the record."""
    config = SHAPES[SHAPE].config
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return Sizes((2 * inner, hidden), (hidden, hidden), 512, memory_bytes(), RUN_S, 5)


SHORT = Sizes((128, 256), (64, 256), 4, 1 << 16, 0.0, 1)


class Bed:
    """Matrices of every packing.

    Args:
        sizes: Theirs.
        threads: The most threads.
    """

    def __init__(self, sizes: Sizes, threads: int) -> None:
        self.sizes, self.threads = sizes, threads
        self._stacks = {
            packing: cycle(matrices(packing, *sizes.gemv, sizes.stack_bytes))
            for packing in _core.layouts()
        }

    def runs(self, isa: str) -> dict[Kernel, Run]:
        """All that is measured of a row."""
        return {kernel: self._run(isa, kernel) for kernel in self._kernels()}

    def _kernels(self) -> Iterator[Kernel]:
        for packing in _core.layouts():
            for family in FAMILIES:
                for threads in sorted({1, self.threads}):
                    yield Kernel(packing, family, threads)
            yield Kernel(packing, None, self.threads)

    def _run(self, isa: str, kernel: Kernel) -> Run:
        sizes, packing, threads = self.sizes, kernel.packing, kernel.threads
        if kernel.family is None:
            return lasting(products(sizes.gemm, packing, sizes.tokens, threads, isa), sizes.run_s)
        (n, k), family, stack = sizes.gemv, kernel.family, self._stacks[packing]
        (codes,) = random_codes(1, k)

        def once() -> float:
            packed = next(stack)  # after those that another kernel has read
            start = time.perf_counter()
            _core.ternary_gemv(packed, packing, n, k, codes, family, isa, num_threads=threads)
            return n * k / (time.perf_counter() - start) / 1e9

        return lasting(once, sizes.run_s)


def lasting(once: Run, seconds: float) -> Run:
    """A run again and again for some time; its rate over all of them."""

    def run() -> float:
        rates, end = [once()], time.perf_counter() + seconds
        while time.perf_counter() < end:
            rates.append(once())
        return statistics.harmonic_mean(rates)

    return run


def records_of(
    isa: str, sizes: Sizes, turns: Turns[Kernel], counts: dict[Call, int]
) -> list[dict[str, Any]]:
    """A record for each kernel of a row, with what ``auto`` takes there."""
    with row(isa):
        auto_packing = runtime.auto_packing()
        families = {packing: runtime.gemv_family(packing) for packing in _core.layouts()}
    records = []
    for kernel, rates in turns.rates.items():
        (n, k), m = (sizes.gemv, 1) if kernel.family else (sizes.gemm, sizes.tokens)
        rate, size = statistics.median(rates), _core.packed_bytes(kernel.packing, n, k)
        counted = counts.get((isa, kernel.packing, kernel.family or ""))
        records.append(
            {
                "isa": isa,
                "auto_packing": auto_packing,
                "auto_family": families[kernel.packing],
                "packing": kernel.packing,
                "family": kernel.family,
                "threads": kernel.threads,
                "m": m,
                "n": n,
                "k": k,
                "bytes": size,
                "giga_weights_per_s": rate,
                "giga_weights_per_s_runs": rates,
                "gb_per_s": rate * size / (m * n * k),
                "instructions_per_1000_weights": counted and counted / (n * k) * 1000,
                "rounds": len(rates),
                "others_cpu_share": turns.others_cpu_share,
            }
        )
    return records


def counted(sizes: Sizes) -> dict[Call, int]:
    """Instructions of the GEMVs; none, with a line that says why, where they cannot be counted."""
    try:
        return count_instructions(*sizes.gemv)
    except NotCountedError as why:
        print(f"instructions are not counted: {why}")
        return {}


def wanted_rows(names: str) -> list[str]:
    """The rows that were asked for, each of which runs here; all where none was."""
    usable = runtime.available_isas()
    wanted = names.split(",") if names else usable
    if unknown := [name for name in wanted if name not in usable]:
        raise SystemExit(f"-k: expected rows of {', '.join(usable)}, got {unknown[0]!r}")
    for isa in wanted:
        if difference := runtime.self_test(isa):
            raise SystemExit(f"{isa}: its kernels are wrong on this machine: {difference}")
    return wanted


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", "--rows", default="", help="some rows of the dispatch table")
    parser.add_argument("--short", action="store_true", help="small matrices, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records to FILE")
    parser.add_argument("--record", action="store_true", help="add a record to records/tiers")
    args = parser.parse_args()
    if args.record and (args.rows or args.short):
        parser.error("--record: a record is of all rows, at their full size")
    rows, facts = wanted_rows(args.rows), {"shape": SHAPE, **machine_facts(HERE)}
    if args.record:
        record_path(facts, "tiers")
    runtime.reset_dispatch()
    sizes = SHORT if args.short else full_sizes()
    counts, bed = counted(sizes), Bed(sizes, runtime.num_threads())
    records: list[dict[str, Any]] = []
    for isa in rows:
        turns = take_turns(bed.runs(isa), sizes.rounds)
        records += [{**record, **facts} for record in records_of(isa, sizes, turns, counts)]
        print(f"{isa}: measured", flush=True)
    print(summary(records))
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if args.record:
        print(write_record(records, "tiers"))


if __name__ == "__main__":
    main()
