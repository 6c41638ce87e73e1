"""``bitinfer convert``: pack a Hugging Face checkpoint, with a progress bar on a terminal."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import click

from bitinfer.cli.bytes_bar import bytes_bar

_LOSS = (
    "warning: these weights were not trained to be ternary: expect text of far lower quality than"
    " the original's"
)


@click.command(
    epilog="""\b
Examples:
  bitinfer convert bitnet-b1.58-2B-4T-bf16 bitnet-2b
  bitinfer chat --model bitnet-2b
  bitinfer convert --ternarize absmean SmolLM2-135M smol-ternary"""
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--packing",
    type=click.Choice(["auto", "i2", "t3", "t5"]),
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
def convert(source: Path, target: Path, packing: str, head: str, ternarize: str | None) -> None:
    """Pack the checkpoint folder SOURCE into the new folder TARGET."""
    from bitinfer import convert as conversion

    started_s = time.monotonic()
    with bytes_bar() if sys.stderr.isatty() else nullcontext() as report:
        progress = None if report is None else functools.partial(report, "pack")
        conversion.convert(
            source, target, packing=packing, head=head, ternarize=ternarize, progress=progress
        )
    if ternarize is not None:
        click.echo(_LOSS, err=True)
    size = sum(file.stat().st_size for file in target.iterdir())
    click.echo(f"wrote {target}: {size / 1e6:.1f} MB in {time.monotonic() - started_s:.1f} s")
