"""``bitinfer convert``: pack a checkpoint, with a progress bar on a terminal."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from bitinfer.cli.bytes_bar import bytes_bar
from bitinfer.cli.notes import echo_notes

_LOSS = (
    "warning: if these are not the masters of a ternary model, expect text of far lower quality"
    " than the original's"
)


@click.command(
    epilog="""\b
Examples:
  bitinfer convert bitnet-b1.58-2B-4T-bf16 bitnet-2b
  bitinfer convert ggml-model-i2_s.gguf bitnet-2b
  bitinfer chat --model bitnet-2b
  bitinfer convert --ternarize absmean SmolLM2-135M smol-ternary"""
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--packing",
    type=click.Choice(["auto", "i2", "t3", "t5", "b1"]),
    default="auto",
    show_default=True,
    help="Layout of the ternary weights; auto is the fastest here",
)
@click.option(
    "--head",
    type=click.Choice(["int8", "source"]),
    default="int8",
    show_default=True,
    help="Output head: fast, or as the checkpoint has it",
)
@click.option(
    "--ternarize",
    type=click.Choice(["absmean"]),
    help="Make a full-precision model ternary; untrained so, it loses nearly all its quality",
)
@click.option(
    "--i2s-layout",
    type=click.Choice(["128", "64", "4row"]),
    help="Byte order of I2_S in a GGUF file, where it is not found",
)
def convert(source: Path, target: Path, ternarize: str | None, **options: Any) -> None:
    """Pack the checkpoint SOURCE, a folder or a GGUF file, into the new folder TARGET."""
    from bitinfer import convert as conversion

    started_s = time.monotonic()
    with bytes_bar() if sys.stderr.isatty() else nullcontext() as report:
        progress = None if report is None else functools.partial(report, "pack")
        conversion.convert(source, target, ternarize=ternarize, progress=progress, **options)
    echo_notes(target)
    if ternarize is not None:
        click.echo(_LOSS, err=True)
    size = sum(file.stat().st_size for file in target.iterdir())
    click.echo(f"wrote {target}: {size / 1e6:.1f} MB in {time.monotonic() - started_s:.1f} s")
