"""Measure how soon a checkpoint of the hub can be talked to, beside `cat`, which only reads it.

    python benchmarks/first_chat.py --work DIR --record       # 3 GB in DIR

A checkpoint of bitnet-b1.58-2B-4T's shape lies in the hub's cache as another program would have
pulled it. `first`: from the start of a new Python to a loaded model, which is packed and kept on
the way. `second`: the same again. Before `cat` and `first` the system forgets the file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from convert_memory import write_checkpoint
from random_model import SHAPES, write_side_files

from bitinfer.machine import machine_facts

OWNER, NAME = "bench", "two-billion"
COMMIT = "0" * 40
WEIGHTS = "model.safetensors"


def fill_cache(home: Path) -> Path:
    """A snapshot of the checkpoint in the hub's cache; returns the weights' blob."""
    repo = home / "hub" / f"models--{OWNER}--{NAME}"
    raw = home / "raw"
    home.mkdir()
    write_checkpoint(raw, "packed")
    config = (raw / "config.json").read_text()
    write_side_files(raw, SHAPES["bitnet-2b-4t"].config)
    (raw / "config.json").write_text(config)
    snapshot = repo / "snapshots" / COMMIT
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    for path in sorted(raw.iterdir()):
        blob = repo / "blobs" / _sha256(path)
        shutil.move(path, blob)
        (snapshot / path.name).symlink_to(blob)
    raw.rmdir()
    return (snapshot / WEIGHTS).resolve()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cat_seconds(path: Path) -> float:
    """From the start of `cat` to its end."""
    start = time.perf_counter()
    subprocess.run(["cat", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def ready_seconds(environment: dict[str, str]) -> float:
    """From the start of a process until it has loaded the model."""
    load = f"from bitinfer import Model; Model.load('{OWNER}/{NAME}'); print('ready', flush=True)"
    command = [sys.executable, "-c", load]
    elsewhere = tempfile.gettempdir()  # the package without its compiled part lies in a checkout
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, cwd=elsewhere, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - start
    if line != "ready\n" or process.returncode:
        raise SystemExit("the model did not load")
    return taken


def measure(work: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each, medians of ``rounds``."""
    home = work.resolve() / "hf"
    blob = fill_cache(home)
    size = blob.stat().st_size
    packed = work.resolve() / "packed"
    environment = {**os.environ, "HF_HOME": str(home), "BITINFER_HUB": str(packed)}
    environment |= {"HF_HUB_OFFLINE": "1"}
    runs: dict[str, list[float]] = {"cat_s": [], "first_s": [], "second_s": []}
    for _ in range(rounds):
        forget(blob)
        runs["cat_s"].append(cat_seconds(blob))
        shutil.rmtree(packed, ignore_errors=True)
        forget(blob)
        runs["first_s"].append(ready_seconds(environment))
        runs["second_s"].append(ready_seconds(environment))
    shutil.rmtree(home)
    shutil.rmtree(packed)
    medians = {name: round(statistics.median(values), 2) for name, values in runs.items()}
    return {"checkpoint_bytes": size, "rounds": rounds, **medians, "runs": runs}


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path, help="folder for the files")
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the result as a record")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "first-chat")
    record = {**measure(args.work, args.rounds), **facts}
    limit = 1.5 * record["cat_s"] + 20
    print(f"cat {record['cat_s']} s, first {record['first_s']} s (limit {limit:.1f}),", end=" ")
    print(f"second {record['second_s']} s (limit 1)")
    if args.record:
        print(write_record([record], "first-chat"))


if __name__ == "__main__":
    main()
