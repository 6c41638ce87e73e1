"""``bitinfer bench``: a table for people, or records for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.options import layout_options

if TYPE_CHECKING:
    from bitinfer.bench import Record

Progress = Callable[[int, int], None]


@click.command()
@click.argument("model", required=False)
@click.option(
    "-p",
    "--prompt-tokens",
    type=click.IntRange(0),
    default=512,
    show_default=True,
    help="Length of the prompt of the prefill; 0: no prefill",
)
@click.option(
    "-n",
    "--generated-tokens",
    type=click.IntRange(0),
    default=128,
    show_default=True,
    help="Tokens generated in the decode; 0: no decode",
)
@click.option(
    "-t",
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads [default: the performance cores]",
)
@click.option(
    "-r", "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Measured runs"
)
@click.option(
    "--warmup",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Runs before them, not counted",
)
@layout_options
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write a list of records to FILE; - is stdout",
)
def bench(
    model: str | None,
    prompt_tokens: int,
    generated_tokens: int,
    threads: int | None,
    repeats: int,
    warmup: int,
    json_path: str | None,
    packing: str,
    head: str,
    kv_cache: str,
) -> None:
    """Measure the prefill and decode speed of MODEL (a folder; default: the embedded one)."""
    from bitinfer import bench as benchmark, default_model
    from bitinfer.engine import Engine
    from bitinfer.model import find_model

    folder = default_model() if model is None else find_model(model)
    engine = Engine.load(folder, packing=packing, head=head, kv_cache=kv_cache, num_threads=threads)
    for note in engine.notes:
        click.echo(f"note: {note}", err=True)
    with _bar() if sys.stderr.isatty() else _silence() as progress:
        records = benchmark.bench(
            engine,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
            repeats=repeats,
            warmup=warmup,
            checkout=_checkout(),
            progress=progress,
        )
    if json_path is None:
        _print_table(records)
        return
    text = json.dumps([record.to_json() for record in records], indent=1)
    if json_path == "-":
        click.echo(text)
    else:
        Path(json_path).write_text(text + "\n", encoding="utf-8")


def _checkout() -> Path | None:
    """The current folder, if it is a checkout of bitinfer: then records name its commit."""
    here = Path.cwd()
    return here if (here / "csrc" / "pack" / "format.h").is_file() else None


def _print_table(records: list[Record]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = records[0]
    machine: dict[str, Any] = first.machine
    table = Table(box=None, pad_edge=False)
    for name in ("phase", "tokens", "tokens/s", "slowest-fastest", "MB/token", "GB/s", "roofline"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    for record in records:
        # A prefill reads each weight for many tokens at once: memory does not bound it.
        share = record.gb_per_s / record.roofline_gb_per_s
        table.add_row(
            record.phase,
            str(record.tokens),
            f"{record.tokens_per_s:.1f}",
            f"{record.tokens_per_s_min:.1f}-{record.tokens_per_s_max:.1f}",
            f"{record.bytes_per_token / 1e6:.2f}",
            f"{record.gb_per_s:.1f}",
            f"{share:.0%}" if record.phase == "decode" else "",
        )
    width = None if sys.stdout.isatty() else 80
    console = Console(width=width, highlight=False, soft_wrap=False)
    console.print(f"{first.model}: {first.packing}, {first.head} head, {first.kv_cache} cache")
    console.print(f"{machine['cpu']}: {first.isa}, {first.threads} threads, {first.repeats} runs")
    console.print(table)
    console.print(f"roofline: {first.roofline_gb_per_s:.1f} GB/s read with as many threads")


@contextmanager
def _silence() -> Iterator[Progress]:
    yield lambda done, total: None


@contextmanager
def _bar() -> Iterator[Progress]:
    """Runs done and in all, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar

    columns = ("measuring", BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
