"""What ``bitinfer eval`` prints: progress while it runs, then tables for people, or JSON."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bitinfer.cli.generation import about_model
from bitinfer.cli.setting import plain
from bitinfer.cli.table import console, print_table
from bitinfer.cli.text import printable
from bitinfer.machine import checkout_here, machine_facts
from bitinfer.progress import progress_bar

if TYPE_CHECKING:
    from bitinfer.evaluate import Accuracy, Perplexity
    from bitinfer.model import Model

Result = TypeVar("Result")
Progress = Callable[[int, int], None]

_LABEL_COLUMNS = 16  # of a label in the table of confusions


def timed(title: str, run: Callable[[Progress], Result]) -> tuple[Result, float]:
    """Run with a bar on stderr, if that is a terminal; what came of it, and the seconds."""
    begin = time.perf_counter()
    with progress_bar(title, " tokens", sys.stderr.isatty()) as show:
        found = run(show)
    return found, time.perf_counter() - begin


class Report:
    """What every task tells of its run: model, file and machine."""

    def __init__(self, model: Model, task: str, file: Path, seconds: float) -> None:
        """Note what belongs to the run; ``model`` may be closed afterwards."""
        self._model = about_model(model)
        self._task, self._file, self._seconds = task, file, seconds

    def print_json(self, facts: Mapping[str, Any]) -> None:
        """One object: the task, its result, the model, the machine."""
        about = {
            "task": self._task,
            "file": str(self._file),
            "sha256": hashlib.sha256(self._file.read_bytes()).hexdigest(),
            **facts,
            "seconds": self._seconds,
            "model": self._model,
            **machine_facts(checkout_here()),
        }
        click.echo(json.dumps(plain(about), indent=2, ensure_ascii=False, allow_nan=False))

    def print_title(self, what: str) -> None:
        """Which model, which file, how much of what."""
        title = f"{self._model['name']}: {self._file.name}, {what}, {self._seconds:.1f} s"
        console().print(printable(title), markup=False)


def perplexity_facts(found: Perplexity) -> dict[str, Any]:
    """The result as JSON has it."""
    return {
        "tokens": found.tokens,
        "bytes": found.bytes,
        "texts": found.texts,
        "window": found.window,
        "stride": found.stride,
        "nats_per_token": found.nats_per_token,
        "perplexity": found.perplexity,
        "nats_per_byte": found.nats_per_byte,
        "byte_perplexity": found.byte_perplexity,
    }


def print_perplexity(report: Report, found: Perplexity) -> None:
    """A table: per token and per byte."""
    report.print_title(f"{found.tokens:,} tokens, {found.bytes:,} bytes")
    texts = "1 text" if found.texts == 1 else f"{found.texts:,} texts"
    to = console()
    to.print(f"{texts}, window {found.window:,}, stride {found.stride:,}")
    rows = [["", "nats", "perplexity"]]
    rows.append(["per token", f"{found.nats_per_token:.4f}", f"{found.perplexity:.4g}"])
    rows.append(["per byte", f"{found.nats_per_byte:.4f}", f"{found.byte_perplexity:.4g}"])
    print_table(rows, to, left=[""])


def accuracy_facts(right: Accuracy) -> dict[str, Any]:
    """The result as JSON has it."""
    return {
        "questions": right.questions,
        "correct": right.correct,
        "accuracy": right.accuracy,
        "standard_error": right.standard_error(right.accuracy),
        "correct_by_length": right.correct_by_length,
        "accuracy_by_length": right.accuracy_by_length,
        "standard_error_by_length": right.standard_error(right.accuracy_by_length),
        "chance": right.chance,
    }


def print_accuracy(report: Report, right: Accuracy) -> None:
    """A table: by log-likelihood, by that per byte, and what guessing would give."""
    report.print_title(f"{right.questions:,} question{'s' * (right.questions != 1)}")
    rows = [["likeliest choice", "correct", "accuracy", "standard error"]]
    for name, correct, share in (
        ("as a whole", right.correct, right.accuracy),
        ("per byte", right.correct_by_length, right.accuracy_by_length),
    ):
        error = f"{right.standard_error(share):.4f}"
        rows.append([name, f"{correct:,}", f"{share:.4f}", error])
    rows.append(["by chance", "", f"{right.chance:.4f}", ""])
    print_table(rows, console(), left=["likeliest choice"])


def print_confusion(labels: Sequence[str], table: list[list[int]]) -> None:
    """How often each label (row) was taken for each (column)."""
    to = console()
    to.print()
    rows = [["label", *(f"→ {_short(label)}" for label in labels)]]
    rows += [[_short(label), *map(str, row)] for label, row in zip(labels, table, strict=True)]
    print_table(rows, to, left=["label"])


def _short(label: str) -> str:
    text = printable(label).replace("\n", " ")
    return text if len(text) <= _LABEL_COLUMNS else text[: _LABEL_COLUMNS - 1] + "…"
