"""Progress in bytes on stderr: bars on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bitinfer.cli.size import size_text

if TYPE_CHECKING:
    import rich.progress

Report = Callable[[str, int, int], None]  # what is done, bytes done, bytes in all

_LINE_EVERY_S = 5.0
_WAITING = "waiting for another process that pulls this model ..."


@contextmanager
def bytes_bar() -> Iterator[Report]:
    """Yield what shows how far each step is, with rate and remaining time."""
    # Warnings of huggingface_hub about a connection that it takes up again would break the bar.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        yield Lines(lambda line: click.echo(line, err=True), time.monotonic)
        return
    with Bars() as bars:
        yield bars


class Bars:
    """A `Report` in bars, one for each step; drawn from the first call on, gone at the end."""

    def __init__(self) -> None:
        self._drawn: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Move the bar of a step."""
        if self._drawn is None:
            self._drawn = _drawn_bars()
            self._drawn.start()
        if step == "wait":
            self._drawn.console.print(_WAITING)
            return
        if step not in self._tasks:  # what was there before does not count as speed
            self._tasks[step] = self._drawn.add_task(step, completed=done, total=total)
        self._drawn.update(self._tasks[step], completed=done, total=total)


def _drawn_bars() -> rich.progress.Progress:
    import rich.progress
    from rich.console import Console

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    return rich.progress.Progress(*columns, console=Console(stderr=True), transient=True)


class Lines:
    """A `Report` in plain lines, few of them."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        """Write each line with ``write``; ``clock`` counts seconds."""
        self._write, self._clock = write, clock
        self._step = ""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Print a line if the last one is old, or the step done."""
        now = self._clock()
        if step == "wait":
            self._write(_WAITING)
            return
        if step != self._step:
            self._step, self._start, self._last, self._ended = step, (now, done), now, False
        if self._ended or (done < total and now - self._last < _LINE_EVERY_S):
            return
        self._ended = done >= total
        self._last = now
        self._write(self._line(now, done, total))

    def _line(self, now: float, done: int, total: int) -> str:
        began_s, began = self._start
        line = f"{self._step}: {size_text(done)} of {size_text(total)}"
        rate = (done - began) / (now - began_s) if now > began_s else 0.0
        if rate > 0:
            line += f", {size_text(int(rate))}/s"
            if done < total:
                seconds = round((total - done) / rate)
                line += f", {seconds // 60}:{seconds % 60:02} left"
        return line
