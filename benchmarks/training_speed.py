"""Tokens per second of training, at the embedded model's shape. Needs the extra ``train``.

    python benchmarks/training_speed.py --record

The same steps with ternary projections and with torch's own ``nn.Linear``, in turn, on random
tokens: the ratio is what ternary training costs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_model import HERE, record_path, write_record
from numpy.typing import NDArray

from bitinfer.machine import machine_facts
from bitinfer.runtime import default_model
from bitinfer.train import TrainConfig, train

ROUNDS = 5
STEPS = 14
WARM_UP = 4  # steps that are not counted: compiling, and first pages of memory
CONTEXT_LENGTH, BATCH_SIZE = 256, 16


class RandomRows:
    """Rows of random tokens."""

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """int64 (count, CONTEXT_LENGTH + 1)."""
        return np.random.default_rng(first).integers(0, 4096, (count, CONTEXT_LENGTH + 1))


def speed(linear: str, folder: Path) -> float:
    """Median tokens per second of the steps that count."""
    config = TrainConfig(
        linear=linear,
        tokenizer=str(default_model()),
        context_length=CONTEXT_LENGTH,
        batch_size=BATCH_SIZE,
        steps=STEPS,
        compile=True,
    )
    records = train(config, folder, rows=RandomRows()).records
    return statistics.median(record.tokens_per_s for record in records[WARM_UP:])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="add a record to records/training")
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "training")
    found: dict[str, list[float]] = {"bitnet": [], "full": []}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(ROUNDS):
            for linear, speeds in found.items():
                speeds.append(speed(linear, Path(folder) / f"{linear}-{index}"))
    ratios = [a / b for a, b in zip(*found.values(), strict=True)]
    line: dict[str, Any] = {
        "task": "training",
        "threads": torch.get_num_threads(),
        "shape": "hidden 256, 6 layers, FFN 768, vocabulary 4096",
        "context_length": CONTEXT_LENGTH,
        "batch_size": BATCH_SIZE,
        "tokens_per_s": found,
        "ternary_by_full": statistics.median(ratios),
        "torch": torch.__version__,
    }
    print(line)
    if args.record:
        print(write_record([line | facts], "training"))


if __name__ == "__main__":
    main()
