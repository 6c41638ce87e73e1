"""``bitinfer generate``: continue a text; nothing but the text goes to stdout."""

from __future__ import annotations

import sys
from typing import Any

import click

from bitinfer.cli.options import load_model, loading_options, sampling_options
from bitinfer.cli.text import proper


@click.command()
@click.argument("prompt", required=False)
@loading_options
@sampling_options
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text (repeatable)")
def generate(prompt: str | None, stop: tuple[str, ...], **options: Any) -> None:
    """Continue PROMPT, or the text on stdin."""
    if prompt is None:
        if sys.stdin.isatty():
            raise click.UsageError("Missing PROMPT.", ctx=click.get_current_context())
        prompt = sys.stdin.read().removesuffix("\n")
    with load_model(options) as model:
        for piece in model.stream(proper(prompt), stop=stop, **options):
            click.echo(piece, nl=False)
            sys.stdout.flush()
    click.echo()
