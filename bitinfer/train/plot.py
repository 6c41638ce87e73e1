"""A run's log as a picture: loss, validation losses and learning rate over the tokens learned.

Needs the extra `plot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bitinfer.bench.plot_style import COLOURS, rc_params
from bitinfer.train.log import StepRecord

_INCHES = (6.4, 5.2)
_SMOOTHED_STEPS = 50  # at most; the mean of so many steps is drawn over single ones
_MARKS = "osD^vP"


def draw(records: Sequence[StepRecord], path: Path, *, theme: str = "light") -> None:
    """Write the curves of a run.

    Args:
        records: Of a run, one or more.
        path: Ends with .png or .svg.
        theme: ``light`` or ``dark``.

    Raises:
        OSError: the file cannot be written.
    """
    with mpl.rc_context(rc_params(theme)):
        figure = Figure(figsize=_INCHES, layout="constrained")
        losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        tokens = [record.tokens for record in records]
        _losses(losses, records, tokens, COLOURS[theme])
        rate.plot(tokens, [record.learning_rate for record in records], color=COLOURS[theme][0])
        rate.set(xlabel="tokens", ylabel="learning rate")
        rate.set_ylim(bottom=0)
        rate.xaxis.set_major_formatter(EngFormatter(sep=" "))
        figure.savefig(path, dpi=160)


def _losses(
    axes: Axes, records: Sequence[StepRecord], tokens: Sequence[int], colours: Sequence[str]
) -> None:
    """Each step faintly, their running mean, and a marked line for each validation file."""
    single = np.array([record.loss for record in records])
    width = max(1, min(_SMOOTHED_STEPS, len(single) // 10))
    mean = np.convolve(single, np.full(width, 1 / width), mode="valid")
    axes.plot(tokens, single, color=colours[0], alpha=0.25, linewidth=0.8)
    axes.plot(tokens[width - 1 :], mean, color=colours[0], label="training")
    names = list(dict.fromkeys(name for record in records for name in record.validation))
    for index, name in enumerate(names):
        measured = [record for record in records if name in record.validation]
        axes.plot(
            [record.tokens for record in measured],
            [record.validation[name] for record in measured],
            color=colours[(index + 1) % len(colours)],
            marker=_MARKS[index % len(_MARKS)],
            markersize=4,
            label=name,
        )
    axes.set(ylabel="loss per token (nats)")
    axes.legend()
