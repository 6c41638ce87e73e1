"""Options that several commands share: how to load a model, and how to sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bitinfer.model import Model

Command = TypeVar("Command", bound=Callable[..., Any])

_LAYOUT = (
    click.option(
        "--packing",
        type=click.Choice(["auto", "i2", "t3", "t5"]),
        default="auto",
        show_default=True,
        help="Layout of the ternary weights in memory",
    ),
    click.option(
        "--head",
        type=click.Choice(["int8", "source"]),
        default="int8",
        show_default=True,
        help="Output head: fast, or as the checkpoint has it",
    ),
    click.option(
        "--kv-cache",
        type=click.Choice(["f16", "f32", "int8"]),
        default="f16",
        show_default=True,
        help="How the cache keeps keys and values",
    ),
)

_LOADING = (
    click.option("--model", metavar="FOLDER", help="Model folder [default: the embedded tales-6m]"),
    *_LAYOUT,
    click.option(
        "--threads",
        type=click.IntRange(1, 256),
        help="Threads [default: the performance cores]",
    ),
    click.option(
        "--context-length",
        type=click.IntRange(2),
        help="Most tokens of prompt and reply [default: the model's]",
    ),
)

_SAMPLING = (
    click.option("--max-tokens", type=click.IntRange(1), help="Most tokens to generate"),
    click.option(
        "--temperature", type=click.FloatRange(0, 100), help="0 is greedy; above, the more varied"
    ),
    click.option("--top-k", type=click.IntRange(0), help="Only the K likeliest tokens; 0: all"),
    click.option("--top-p", type=click.FloatRange(0, 1), help="Only the likeliest up to this sum"),
    click.option(
        "--min-p", type=click.FloatRange(0, 1), help="Only tokens of this share of the likeliest"
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**64 - 1), help="Repeat the same random choices"
    ),
)


def layout_options(command: Command) -> Command:
    """Add --packing, --head and --kv-cache."""
    for option in reversed(_LAYOUT):
        command = option(command)
    return command


def loading_options(command: Command) -> Command:
    """Add the options of `load_model`."""
    for option in reversed(_LOADING):
        command = option(command)
    return command


def sampling_options(command: Command) -> Command:
    """Add the options of `Model.generate`; without a default, for the model has its own."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


def load_model(options: dict[str, Any]) -> Model:
    """Load the model that ``options`` name, and remove what names it; notes go to stderr."""
    from bitinfer import default_model
    from bitinfer.model import Model

    model = options.pop("model")
    loaded = Model.load(
        default_model() if model is None else model,
        packing=options.pop("packing"),
        head=options.pop("head"),
        kv_cache=options.pop("kv_cache"),
        num_threads=options.pop("threads"),
        context_length=options.pop("context_length"),
    )
    for note in loaded.engine.notes:
        click.echo(f"note: {note}", err=True)
    return loaded
