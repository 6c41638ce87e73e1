"""``bitinfer bench``: a table for people, records for programs, plots; ``bench compare``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from bitinfer.cli.bench_compare import compare
from bitinfer.cli.counts import Counts
from bitinfer.cli.options import QUIET_MODE, layout_options, take_quiet_threads
from bitinfer.cli.plots import check_plots, plot_options
from bitinfer.cli.rounds import rounds_bar

if TYPE_CHECKING:
    from bitinfer.bench import Record
    from bitinfer.engine import Engine


class _Bench(click.Command):
    """``bench MODEL`` measures; ``bench compare`` is a command of its own."""

    subcommands: ClassVar = {"compare": compare}

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args and args[0] in self.subcommands:
            command = self.subcommands[args[0]]
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    cls=_Bench,
    epilog="""\b
Examples:
  bitinfer bench bitnet-2b -p 512 -n 128
  bitinfer bench -t 1,2,4 -d 0,1024 --plot speed.svg
  bitinfer bench compare OLD.json NEW.json   compares two measurements""",
)
@click.argument("model", required=False)
@click.option(
    "-p",
    "--prompt-tokens",
    type=Counts(0),
    metavar="N,...",
    default="512",
    show_default=True,
    help="Lengths of prompts to prefill (pp); 0: none",
)
@click.option(
    "-n",
    "--generated-tokens",
    type=Counts(0),
    metavar="N,...",
    default="128",
    show_default=True,
    help="Numbers of tokens to generate (tg); 0: none",
)
@click.option(
    "-pg",
    "--pair",
    "pairs",
    type=Counts(1, count=2),
    metavar="P,N",
    multiple=True,
    help="A prompt and tokens generated after it, timed as one; may be repeated",
)
@click.option(
    "-b",
    "--batch",
    "batches",
    type=Counts(1, 256),
    metavar="N,...",
    default="1",
    show_default=True,
    help="Sequences that are generated at once",
)
@click.option(
    "-d",
    "--depth",
    "depths",
    type=Counts(0),
    metavar="N,...",
    default="0",
    show_default=True,
    help="Tokens that the cache holds before",
)
@click.option(
    "-t",
    "--threads",
    type=Counts(1, 256),
    metavar="N,...",
    help="Numbers of threads [default: the performance cores]",
)
@QUIET_MODE
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
    "-o",
    "--output",
    type=click.Choice(["table", "md", "csv", "json"]),
    default="table",
    show_default=True,
    help="What goes to stdout",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write a list of records to FILE; - is stdout, instead of --output",
)
@plot_options
def bench(
    model: str | None,
    json_path: str | None,
    output: str,
    plots: tuple[Path, ...],
    theme: str,
    packing: str,
    head: str,
    kv_cache: str,
    ffn: str,
    weights: str,
    quiet_mode: bool,
    **measured: Any,
) -> None:
    """Measure the prefill and decode speed of MODEL (path or name; default: the embedded one).

    Options with N,... take several numbers with commas between them; everything is measured with
    each number of threads and at each depth, generation with each batch.
    """
    from bitinfer.bench import write_records
    from bitinfer.cli.model_argument import model_folder
    from bitinfer.engine import Engine

    check_plots(plots)
    folder = model_folder(model)
    threads = measured.pop("threads") or ()
    engine = Engine.load(
        folder,
        packing=packing,
        head=head,
        kv_cache=kv_cache,
        ffn=ffn,
        weights=weights,
        num_threads=threads[0] if threads else None,
    )
    if quiet_mode and not threads:
        take_quiet_threads(engine)
    for note in engine.notes:
        click.echo(f"note: {note}", err=True)
    records = _measure(engine, threads=threads, **measured)
    text = write_records(records)
    if json_path not in (None, "-"):
        Path(str(json_path)).write_text(text + "\n", encoding="utf-8")
    if plots:
        from bitinfer.bench.plot import draw

        for path in plots:
            draw(records, path, theme=theme)
    if json_path == "-":
        output = "json"
    if output != "table" or json_path is None:
        _show(records, output)


def _measure(
    engine: Engine,
    *,
    prompt_tokens: tuple[int, ...],
    generated_tokens: tuple[int, ...],
    **options: Any,
) -> list[Record]:
    from bitinfer.bench import bench as measure
    from bitinfer.energy import open_energy_counter
    from bitinfer.machine import checkout_here

    with closing(open_energy_counter()) as counter, rounds_bar() as progress:
        return measure(
            engine,
            prompts=prompt_tokens,
            generated=generated_tokens,
            energy=counter,
            checkout=checkout_here(),
            progress=progress,
            **options,
        )


def _show(records: list[Record], output: str) -> None:
    from bitinfer.bench import tables, write_records

    rows = tables.record_rows(records)
    rows = tables.without_columns(rows, tables.empty_columns(rows))
    if output == "json":
        click.echo(write_records(records))
    elif output == "csv":
        click.echo(tables.csv_text(records), nl=False)
    elif output == "md":
        click.echo(tables.markdown(rows))
    else:
        _print_table(records, rows)


def _print_table(records: list[Record], rows: list[list[str]]) -> None:
    from bitinfer.bench import tables
    from bitinfer.cli.table import console, print_table

    first, to = records[0], console()
    runs = f"{first.repeats} run{'s' * (first.repeats > 1)}"
    to.print(f"{first.model}: {first.packing}, {first.head} head, {first.kv_cache} cache")
    to.print(f"{first.machine['cpu']}: {first.isa}, {runs}")
    rows = tables.without_columns(rows, ["model", "packing"])
    drop = ["slowest-fastest", "MB/token", "J/token", *tables.PART_COLUMNS]
    drop += ["GB/s", "roofline", "threads"]
    print_table(rows, to, left=["test"], drop=drop)
    read: dict[int, float] = {}
    for record in records:
        read[record.threads] = max(read.get(record.threads, 0.0), record.roofline_gb_per_s)
    shown = ", ".join(f"{gb:.1f} GB/s by {n}" for n, gb in read.items())
    to.print("weights, head, KV: MB that each token reads; roofline: share of memory's speed")
    to.print(f"roofline: memory read with as many threads: {shown}")
    to.print(f"energy: {first.energy}")
