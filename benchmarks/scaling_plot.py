"""The scaling study as a picture: speed by context, batch and row. Needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator
from scaling_cells import BATCHES, CONTEXTS, STUDIED
from scaling_page import NEAR, Study

from bitinfer.bench.plot_style import COLOURS, rc_params

_MARKS = "osD^"
_SIZE = (11.5, 4.2)


def draw(study: Study, path: Path, theme: str) -> None:
    """Write one picture of three panels, a line for each size of model."""
    most, best = study.threads, study.best
    rows = list(reversed(study.isas))
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(rc_params(theme)):
        figure = Figure(figsize=_SIZE, layout="constrained")
        by_context, by_batch, by_row = figure.subplots(1, 3)
        for index, shape in enumerate(STUDIED):
            look = {"color": COLOURS[theme][index], "marker": _MARKS[index], "label": shape}
            for axes, values, cells in (
                (by_context, CONTEXTS, [(shape, best, most, c, 1) for c in CONTEXTS]),
                (by_batch, BATCHES, [(shape, best, most, NEAR, b) for b in BATCHES]),
                (by_row, range(len(rows)), [(shape, isa, most, NEAR, 1) for isa in rows]),
            ):
                _line(axes, values, [study.speed(*cell) for cell in cells], look)
        _scale(by_context, f"decode by context, {best}, {most} threads", "tokens", CONTEXTS)
        _scale(by_batch, f"decode by batch after {NEAR} tokens, {best}", "sequences", BATCHES)
        by_row.set(title=f"decode by row, {most} threads", yscale="log")
        by_row.set_xticks(range(len(rows)), rows, rotation=20)
        for axes in figure.axes:
            axes.set_ylabel("tokens/s")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
            axes.yaxis.set_minor_formatter(NullFormatter())
        handles, labels = by_context.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(STUDIED))
        machine = study.newest.machine
        caption = f"{machine['cpu']}, {machine['cores']} cores, random weights; medians of"
        caption += f" {study.newest.repeats} runs; {machine['date'][:10]}"
        figure.supxlabel(caption, fontsize="x-small")
        figure.savefig(path)


def _line(
    axes: Axes, x: Sequence[int], speeds: Sequence[float | None], look: dict[str, Any]
) -> None:
    """What was measured, joined."""
    points = [(at, speed) for at, speed in zip(x, speeds, strict=True) if speed is not None]
    axes.plot([at for at, _ in points], [speed for _, speed in points], markersize=5, **look)


def _scale(axes: Axes, title: str, unit: str, values: Sequence[int]) -> None:
    axes.set(title=title, xlabel=unit, xscale="log", yscale="log")
    axes.set_xticks(values, list(map(str, values)))
    axes.xaxis.set_minor_locator(NullLocator())
