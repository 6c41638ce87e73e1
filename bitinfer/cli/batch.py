"""``bitinfer batch``: a file of requests becomes a file of answers; here its progress is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.options import (
    Sections,
    load_model,
    sampling_options,
    serving_options,
    setting,
)
from bitinfer.cli.server_extra import needs_extra, print_log
from bitinfer.cli.setting import Whole
from bitinfer.sampling import SETTINGS
from bitinfer.serve.limits import SLOTS

if TYPE_CHECKING:
    from bitinfer.batch.run import Progress

_BAR_COLUMNS = 16
_LINE_EVERY_S = 10.0  # where there is no terminal


@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer batch questions.jsonl answers.jsonl
  bitinfer batch -m 2b4t --max-tokens 200 questions.jsonl answers.jsonl

\b
A row is {"prompt": TEXT}, {"messages": [...]}, or a line of OpenAI's batch
files. The same command goes on after an interruption. Ends with 1 if a row
has failed. What OUTPUT holds: docs/scale.md.""",
)
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, path_type=Path))
@click.argument("output", metavar="OUTPUT", type=click.Path(dir_okay=False, path_type=Path))
@setting("--served-name", metavar="NAME", help="What rows call the model [default: its folder]")
@setting(
    "--slots", type=Whole(1, 256), default=SLOTS, show_default=True, help="Replies made at once"
)
@sampling_options
@serving_options
@click.pass_context
def batch(ctx: click.Context, /, source: Path, output: Path, **options: Any) -> None:
    """Answer each row of INPUT, JSON lines, once, into OUTPUT.

    The sampling options are for rows that do not have them.
    """
    if output.resolve() == source.resolve():
        raise click.UsageError("OUTPUT: expected another file than INPUT", ctx=ctx)
    with needs_extra("server", ctx):
        from bitinfer.batch.run import partial, run_batch
    print_log(requests=False)
    name, slots = options.pop("served_name"), options.pop("slots")
    defaults = {key: options.pop(key) for key in ("max_tokens", *SETTINGS)}
    began_s = time.monotonic()
    with load_model(options) as model:
        try:
            with _shown() as report:
                progress = run_batch(
                    model, source, output, slots=slots, name=name, defaults=defaults, report=report
                )
        except KeyboardInterrupt:
            kept = f"the answers so far are in {partial(output)}"
            click.echo(f"stopped: {kept}; the same command goes on", err=True)
            raise
    if progress.resumed == progress.rows:
        click.echo(f"{output}: had all {progress.rows:,} rows already", err=True)
    else:
        took = _duration(time.monotonic() - began_s)
        click.echo(f"wrote {output}: {progress.rows:,} rows in {took}", err=True)
    if progress.failed:
        raise click.ClickException(
            f"{progress.failed:,} of {progress.rows:,} rows failed: {output} says why"
        )


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Yield what shows progress: a bar on a terminal, elsewhere now and then a line."""
    if not sys.stderr.isatty():
        yield Lines(time.monotonic)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress as Bar, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    columns = (BarColumn(None, table_column=Column(max_width=_BAR_COLUMNS)), text)
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        pace, task = Pace(time.monotonic), bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            text = pace.text(progress)
            bar.update(task, completed=progress.done, total=progress.rows, description=text)

        yield show


class Lines:
    """Shows progress in lines: the first at once, then some."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._pace = clock, Pace(clock)
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Print a line if the last one is old."""
        if (now_s := self._clock()) >= self._next_s:
            self._next_s = now_s + _LINE_EVERY_S
            click.echo(self._pace.text(progress), err=True)


class Pace:
    """Tells how far a batch is, how fast, and how long it will take."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s: float | None = None

    def text(self, progress: Progress) -> str:
        """One line; the first call begins the time."""
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
        text = f"{progress.done:,}/{progress.rows:,} rows"
        if progress.failed:
            text += f" ({progress.failed:,} failed)"
        done, took_s = progress.done - progress.resumed, now_s - self._began_s
        if done and took_s > 0:
            text += f", {_rate(done / took_s)} rows/s, {_rate(progress.tokens / took_s)} tokens/s"
            if left := progress.rows - progress.done:
                text += f", {_duration(left * took_s / done)} left"
        elif progress.resumed:
            text += " done before"
        return text


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
