"""How far a training run is, on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bitinfer.train.config import TrainConfig
    from bitinfer.train.log import StepRecord

_LINE_EVERY_S = 10.0
_RATE_OVER_STEPS = 50  # the speed shown, and the time left, are of the last steps

Report = Callable[["StepRecord"], None]


@contextmanager
def train_progress(config: TrainConfig) -> Iterator[Report]:
    """Yield what takes the record of each step.

    Of several processes only the first one says anything.
    """
    if os.environ.get("RANK", "0") != "0":
        yield lambda record: None
    elif sys.stderr.isatty():
        with _bar(config) as report:
            yield report
    else:
        yield Lines(config.steps, lambda line: click.echo(line, err=True), time.monotonic)


class Pace:
    """Tokens per second and seconds left, of the last steps."""

    def __init__(self, steps: int, clock: Callable[[], float]) -> None:
        self._steps, self._clock = steps, clock
        self._seen: list[tuple[float, int, int]] = []  # when, steps, tokens

    def add(self, record: StepRecord) -> tuple[float, float | None]:
        """Take a step; its own speed is all that is known after the first."""
        self._seen = [*self._seen[-_RATE_OVER_STEPS:], (self._clock(), record.step, record.tokens)]
        began, step, tokens = self._seen[0]
        seconds = self._seen[-1][0] - began
        if seconds <= 0:
            return record.tokens_per_s, None
        left = (self._steps - record.step) * seconds / (record.step - step)
        return (record.tokens - tokens) / seconds, left


class Lines:
    """Plain lines, few of them; each validation has one."""

    def __init__(
        self, steps: int, write: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """Write each line with ``write``; ``clock`` counts seconds."""
        self._steps, self._write, self._clock = steps, write, clock
        self._pace, self._last = Pace(steps, clock), clock()
        write(f"training: {steps:,} steps")

    def __call__(self, record: StepRecord) -> None:
        """Write a line if the last one is old."""
        rate, left = self._pace.add(record)
        if self._clock() - self._last >= _LINE_EVERY_S:
            self._last = self._clock()
            after = "" if left is None else f", {duration(left)} left"
            self._write(
                f"step {record.step:,} of {self._steps:,}: loss {record.loss:.3f},"
                f" {rate:,.0f} tokens/s{after}"
            )
        for line in validation_lines(record):
            self._write(line)


@contextmanager
def _bar(config: TrainConfig) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        task = progress.add_task("getting ready", total=config.steps)
        pace = Pace(config.steps, time.monotonic)

        def report(record: StepRecord) -> None:
            rate, left = pace.add(record)
            after = "" if left is None else f", {duration(left)} left"
            said = f"loss {record.loss:.3f}, {rate:,.0f} tokens/s{after}"
            progress.update(task, completed=record.step, description=said)
            for line in validation_lines(record):
                progress.console.print(line, markup=False)

        yield report


def validation_lines(record: StepRecord) -> list[str]:
    """A line for each validation file of a step."""
    from bitinfer.train.log import perplexity

    return [
        f"step {record.step:,}: {name}: loss {loss:.4f}, perplexity {perplexity(loss):.2f}"
        for name, loss in record.validation.items()
    ]


def duration(seconds: float) -> str:
    """As ``m:ss``, or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
