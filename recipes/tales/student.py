"""tales-6m: a ternary student of a teacher's words and of plain text.

    python recipes/tales/student.py RECIPE TAUGHT OUT

RECIPE is a TOML file, whose ``data`` are the texts that are learned beside the stories, TAUGHT a
folder that taught.py wrote, OUT the folder of the run (docs/training.md): with --resume it goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from taught import LENGTH, Taught, taught_loss, text_tokens
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.runtime import default_model
from bitinfer.train import TrainConfig, train
from bitinfer.train.config import read_toml
from bitinfer.train.data import PackedRows, parse_source
from bitinfer.train.log import StepRecord

STORIES = Path(__file__).parent / "data" / "tinystories.txt"
STORY_ROWS = 10  # of the 16 in a step
TEACHER_SHARE = 0.8  # of the loss of a taught row; the rest is the text's
UNNUMBERED = -1  # in a row's first column, where a story row has its number


@dataclass(frozen=True)
class MixedRows:
    """Rows of a step: first stories, then the others, each behind its number."""

    taught: Taught
    others: PackedRows
    batch_size: int

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """int64 (count, 1 + LENGTH + 1)."""
        return np.concatenate([self._row(at) for at in range(first, first + count)])

    def _row(self, at: int) -> NDArray[np.int64]:
        step, place = divmod(at, self.batch_size)
        if place >= STORY_ROWS:
            other = step * (self.batch_size - STORY_ROWS) + place - STORY_ROWS
            return np.insert(self.others.rows(other, 1), 0, UNNUMBERED, axis=1)
        told, story = divmod(step * STORY_ROWS + place, self.taught.total)
        number = shuffled(self.taught.total, told)[story]
        return np.insert(self.taught.rows.rows(int(number), 1), 0, number, axis=1)


@cache
def shuffled(count: int, number: int) -> NDArray[np.int64]:
    """The order of ``count`` rows in a pass."""
    return np.argsort(np.random.PCG64([2, number]).random_raw(count), kind="stable")


def loss_of(taught: Taught, model: nn.Module, rows: Tensor) -> Tensor:
    """What a step minimizes: cross entropy, and of taught rows that under the teacher, too."""
    numbers, tokens = rows[:, 0].numpy(), rows[:, 1:]
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    known, ids, logs = taught.likeliest(numbers)
    return _mixed(logits, tokens[:, 1:].contiguous(), ids, logs, TEACHER_SHARE * known)


@torch.compile
def _mixed(logits: Tensor, labels: Tensor, ids: Tensor, logs: Tensor, share: Tensor) -> Tensor:
    ours = functional.log_softmax(logits.float(), dim=-1)
    text = -ours.gather(-1, labels[..., None])[..., 0]
    return torch.lerp(text, taught_loss(ours, ids, logs), share[:, None]).mean()


def show(record: StepRecord) -> None:
    """Print what a step came to."""
    measured = "".join(f", {name} {loss:.4f}" for name, loss in record.validation.items())
    print(f"step {record.step}: {record.loss:.4f}{measured}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("recipe", "taught", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--start", type=Path, help="folder with masters to go on from")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    given = parser.parse_args()
    config = TrainConfig(
        **read_toml(given.recipe),
        start=str(given.start) if given.start else None,
        tokenizer=str(default_model()),
        context_length=LENGTH,
    )
    taught = Taught(STORIES, default_model(), given.taught)
    print(f"{taught.count} of {taught.total} rows are taught", flush=True)
    sources = [parse_source(text) for text in config.data]
    others = [(text_tokens(path, default_model(), given.taught), count) for path, count in sources]
    train(
        config,
        given.out,
        resume=given.resume,
        rows=MixedRows(taught, PackedRows(others, LENGTH, config.seed), config.batch_size),
        loss_fn=partial(loss_of, taught),
        report=show,
    )


if __name__ == "__main__":
    main()
