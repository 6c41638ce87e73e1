"""Tokens per second of training, at the default shape. Needs the extra ``train``.

    python benchmarks/training_speed.py --record

The same steps in turn, each time in a process of its own, on random tokens: with ternary
projections; with torch's own ``nn.Linear``, whose ratio is what ternary training costs; ternary
with Muon; and ternary while the C library gives freed memory back to the system.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from bench_model import HERE, record_path, write_record
from numpy.typing import NDArray

from bitinfer.machine import machine_facts
from bitinfer.runtime import default_model
from bitinfer.train import TrainConfig, loop, train

ROUNDS = 3
STEPS = 14
WARM_UP = 4  # steps that are not counted: compiling, and first pages of memory
CONTEXT_LENGTH, BATCH_SIZE = 512, 16
KINDS: dict[str, dict[str, Any]] = {
    "bitnet": {},
    "full": {"linear": "full"},
    "muon": {"optimizer": "muon"},
    "given back": {},
}


class RandomRows:
    """Rows of random tokens."""

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """int64 (count, CONTEXT_LENGTH + 1)."""
        return np.random.default_rng(first).integers(0, 4096, (count, CONTEXT_LENGTH + 1))


def speed(kind: str) -> float:
    """Median tokens per second of the steps that count."""
    config = TrainConfig(
        tokenizer=str(default_model()),
        context_length=CONTEXT_LENGTH,
        batch_size=BATCH_SIZE,
        steps=STEPS,
        compile=True,
        **KINDS[kind],
    )
    given_back = patch.object(loop, "keep_freed_memory") if kind == "given back" else nullcontext()
    with tempfile.TemporaryDirectory() as folder, given_back:
        records = train(config, Path(folder) / "run", rows=RandomRows()).records
    return statistics.median(record.tokens_per_s for record in records[WARM_UP:])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="add a record to records/training")
    parser.add_argument("--kind", choices=KINDS, help="run this once and print its speed")
    args = parser.parse_args()
    if args.kind:
        print(speed(args.kind))
        return
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "training")
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind, speeds in found.items():
            said = subprocess.check_output([sys.executable, __file__, "--kind", kind], text=True)
            speeds.append(float(said.split()[-1]))
            print(kind, speeds[-1], flush=True)
    line: dict[str, Any] = {
        "task": "training",
        "threads": torch.get_num_threads(),
        "shape": "hidden 256, 6 layers, FFN 768, vocabulary 4096",
        "context_length": CONTEXT_LENGTH,
        "batch_size": BATCH_SIZE,
        "tokens_per_s": found,
        "of_bitnet": {
            kind: statistics.median(a / b for a, b in zip(speeds, found["bitnet"], strict=True))
            for kind, speeds in found.items()
        },
        "torch": torch.__version__,
    }
    print(line)
    if args.record:
        print(write_record([line | facts], "training"))


if __name__ == "__main__":
    main()
