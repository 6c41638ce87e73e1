"""Measure memory and latency beside llama.cpp in F16, of the same shapes.

    pip install 'bitinfer[peers]'
    python benchmarks/fp16.py --work DIR --record        # up to 8 GB in DIR, and of memory

The programs take turns (``turns.py``). A shape's files are deleted after it, unless ``--keep``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, resident_bytes, write_record
from engine_runs import generation
from llama import Llama, llama_name, require_llama
from random_model import write_random_model
from scaling_cells import STUDIED, study_shape
from turns import Run, Turns, ratio, take_turns

from bitinfer import runtime
from bitinfer.bench.cases import Case
from bitinfer.engine import Engine
from bitinfer.formats.packed import PACKED_NAME
from bitinfer.machine import machine_facts

TESTS = {"prefill": (128, 0), "decode": (0, 16)}  # phase -> tokens of the prompt, generated


def files(shape: str, work: Path) -> tuple[Path, Path]:
    """The packed model of a shape and the same weights as F16, made if they are not there."""
    from gguf_model import write_gguf

    folder, file = work / f"fp16-{shape}", work / f"fp16-{shape}.gguf"
    if not folder.exists():
        write_random_model(study_shape(shape), folder, packing="t5")
    if not file.exists():
        write_gguf(folder, file, "F16", "F16")
    return folder, file


def measure(folder: Path, file: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """A record for each phase; ``f16_...`` are llama.cpp's figures."""
    context = 2 * max(map(max, TESTS.values()))
    start = resident_bytes() or 0
    engine = Engine.load(folder, num_threads=threads, context_length=context)
    runs: dict[tuple[str, str], Run] = {
        ("", phase): generation(engine, threads, Case(*test)) for phase, test in TESTS.items()
    }
    ours = _memory_of(list(runs.values())) - start
    llama = Llama(file, threads, context)
    theirs = {("f16_", phase): partial(llama.rate, *test) for phase, test in TESTS.items()}
    memory = {
        "resident_bytes": ours,
        "f16_resident_bytes": _memory_of(list(theirs.values())) - ours - start,
        "file_bytes": (folder / PACKED_NAME).stat().st_size,
        "f16_file_bytes": file.stat().st_size,
        "packing": engine.packing,
    }
    turns = take_turns({**runs, **theirs}, rounds)
    return [{**_record(phase, turns, rounds), **memory} for phase in TESTS]


def _memory_of(runs: list[Run]) -> int:
    """Resident memory of this process after the runs."""
    for run in runs:
        run()
    return resident_bytes() or 0


def _record(phase: str, turns: Turns[tuple[str, str]], rounds: int) -> dict[str, Any]:
    faster = ratio(turns.rates["", phase], turns.rates["f16_", phase])
    record: dict[str, Any] = {"phase": phase, "tokens": sum(TESTS[phase]), "rounds": rounds}
    record |= {"ratio": faster.median, "ratio_min": faster.least, "ratio_max": faster.largest}
    for program in ("", "f16_"):
        rates = turns.rates[program, phase]
        record[f"{program}tokens_per_s"] = statistics.median(rates)
        record[f"{program}tokens_per_s_runs"] = rates
    return record | {"others_cpu_share": turns.others_cpu_share}


def main() -> None:
    """The command line."""
    require_llama()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models")
    parser.add_argument("--shapes", default="0.7B,2B,3B", help=f"of {', '.join(STUDIED)}")
    parser.add_argument("-t", "--threads", type=int, default=runtime.num_threads())
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="do not delete the models")
    parser.add_argument("--record", action="store_true", help="add a record to records/fp16")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    facts = {"threads": args.threads, "isa": runtime.active_isa(), "peer": llama_name()}
    facts |= machine_facts(HERE)
    part = f"-{args.shapes.replace(',', '-')}"
    if args.record:
        record_path(facts, "fp16", part)
    records: list[dict[str, Any]] = []
    for shape in args.shapes.split(","):
        paths = files(shape, args.work)
        found = measure(*paths, args.threads, args.rounds)
        records += [{"shape": shape, **record, **facts} for record in found]
        for record in found:
            memory = record["f16_resident_bytes"] / record["resident_bytes"]
            print(f"{shape} {record['phase']}: {record['ratio']:.2f} x, memory {memory:.2f} x")
        if not args.keep:
            shutil.rmtree(paths[0])
            paths[1].unlink()
    if args.record:
        print(write_record(records, "fp16", part))


if __name__ == "__main__":
    main()
