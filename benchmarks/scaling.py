"""Measure how speed grows and shrinks with model, context, batch, threads and row.

    python benchmarks/scaling.py --work DIR                     # all that is not yet recorded
    python benchmarks/scaling.py --work DIR -k 2B/amx --seconds 60
    python benchmarks/scaling.py --list

Every cell that is done is a line of ``records/scaling/<cpu>.jsonl``, a record as `bitinfer bench`
makes it, and is not measured again. Models have random weights and lie in huge pages; each is made
when it is needed and deleted after its last cell, unless ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from bench_model import HERE, cpu_name
from engine_runs import default_packing, row
from random_model import write_random_model
from scaling_cells import GENERATED, PROMPT, Cell, cells, study_shape

from bitinfer import runtime
from bitinfer.bench import Record, bench
from bitinfer.engine import Engine
from bitinfer.machine import machine_facts

REPEATS = 5
LEFT_OUT = ("sse41", "scalar")  # rows that no machine of interest has as its best
RECORDS = HERE / "records" / "scaling"


def records_file(facts: dict[str, Any]) -> Path:
    """The file of this machine."""
    return RECORDS / f"{cpu_name(facts['cpu'])}-{facts['cores']}-cores.jsonl"


def read_cells(path: Path) -> dict[str, Record]:
    """What is recorded: name of the cell -> record."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    flat = [json.loads(line) for line in lines]
    return {line["cell"]: Record.from_json(line) for line in flat}


def measure(cell: Cell, engine: Engine) -> Record:
    """One cell on its row."""
    with row(cell.isa):
        (record,) = bench(
            engine,
            prompts=[0 if cell.batch else PROMPT],
            generated=[GENERATED if cell.batch else 0],
            batches=[cell.batch or 1],
            depths=[max(0, cell.context - 1)],
            threads=[cell.threads],
            repeats=REPEATS,
            checkout=HERE,
        )
    return record


def model_of(shape: str, work: Path) -> Path:
    """The packed model of a shape, made if it is not there."""
    path = work / f"scaling-{shape}"
    if not path.exists():
        write_random_model(study_shape(shape), path, packing="t5")
    return path


def _load(shape: str, work: Path, packing: str) -> Engine:
    return Engine.load(model_of(shape, work), packing=packing, weights="copy")


def run(wanted: list[Cell], path: Path, work: Path, seconds: float, keep: bool) -> int:
    """Measure cells until the time is over; how many are left."""
    started, left = time.monotonic(), len(wanted)
    path.parent.mkdir(parents=True, exist_ok=True)
    for shape, of_shape in groupby(wanted, key=lambda cell: cell.shape):
        load = cache(partial(_load, shape, work))
        for cell in of_shape:
            if time.monotonic() - started > seconds:
                return left
            record = measure(cell, load(default_packing(cell.isa)))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"cell": cell.name, **record.to_json()}) + "\n")
            left -= 1
            print(f"{cell.name}: {record.tokens_per_s:.1f} tokens/s", flush=True)
        if not keep:
            shutil.rmtree(work / f"scaling-{shape}")
    return left


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for models")
    parser.add_argument("-k", "--only", default="", help="cells whose name has this in it")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after")
    parser.add_argument("--keep", action="store_true", help="do not delete the models")
    parser.add_argument("--list", action="store_true", help="name the cells that are left")
    args = parser.parse_args()
    path = records_file(machine_facts(HERE))
    done = read_cells(path)
    rows = [isa for isa in runtime.available_isas() if isa not in LEFT_OUT]
    every = cells(rows, runtime.num_threads())
    wanted = [cell for cell in every if cell.name not in done and args.only in cell.name]
    if args.list or args.work is None:
        print(*(cell.name for cell in wanted), f"{len(wanted)} of {len(every)} left", sep="\n")
        return
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"{run(wanted, path, args.work, args.seconds, args.keep)} left")


if __name__ == "__main__":
    main()
