"""The options ``--plot`` and ``--theme``, and what is checked before the work."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def plot_options(command: Command) -> Command:
    """Add --plot and --theme."""
    add_plot = click.option(
        "--plot",
        "plots",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Draw the figures into FILE.png or FILE.svg; may be repeated",
    )
    add_theme = click.option(
        "--theme",
        type=click.Choice(["light", "dark"]),
        default="light",
        show_default=True,
        help="Colours of the plot",
    )
    return add_plot(add_theme(command))


def check_plots(paths: tuple[Path, ...]) -> None:
    """Refuse before the work what could not be drawn after it."""
    from bitinfer.bench.plot_style import SUFFIXES

    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise click.BadParameter(
                f"expected a name that ends with {' or '.join(SUFFIXES)}, got '{path}'",
                param_hint="'--plot'",
            )
    if paths and importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException(
            "--plot: matplotlib is missing: install it with pip install 'bitinfer[plot]'"
        )
