"""``bitinfer export``: write a model in the format of other programs."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import click

from bitinfer.cli.bytes_bar import bytes_bar
from bitinfer.cli.model_argument import model_folder


@click.command(
    epilog="""\b
Examples:
  bitinfer export falcon-e-1b falcon.gguf --gguf tq2_0
  bitinfer export bitnet-2b bitnet-2b.gguf --gguf i2_s"""
)
@click.argument("model")
@click.argument("target", metavar="OUT.gguf", type=click.Path(path_type=Path))
@click.option(
    "--gguf",
    "kind",
    type=click.Choice(["tq1_0", "tq2_0", "i2_s"]),
    required=True,
    help="Type of the ternary weights: tq1_0 (smallest) and tq2_0 as llama.cpp has them, i2_s as"
    " bitnet.cpp",
)
@click.option("--force", is_flag=True, help="Replace an existing file")
def export(model: str, target: Path, kind: str, force: bool) -> None:
    """Write MODEL (folder, GGUF file or name) to the file OUT.gguf, with its tokenizer."""
    from bitinfer.export import export_gguf

    folder = model_folder(model)
    started_s = time.monotonic()
    with bytes_bar() if sys.stderr.isatty() else nullcontext() as report:
        progress = None if report is None else functools.partial(report, "export")
        done = export_gguf(folder, target, kind=kind, force=force, progress=progress)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    size = target.stat().st_size
    click.echo(f"wrote {target}: {size / 1e6:.1f} MB in {time.monotonic() - started_s:.1f} s")
    click.echo(f"architecture {done.architecture}, read by {done.programs}")
