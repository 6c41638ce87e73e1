"""The promises as a picture: each measured ratio by its target. Needs the extra `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from reach_lines import by_target, reached, sign

from bitinfer.bench.plot_style import COLOURS, rc_params

_ROW_INCHES = 0.27
_TICKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 10)
_LOOKS = {True: (2, "o", "reached"), False: (5, "X", "not reached")}  # colour, mark, name


def draw(lines: list[dict[str, Any]], path: Path, theme: str) -> None:
    """Write the picture of those lines that have a target: right of the rule is reached."""
    shown = [line for line in lines if line["target"] is not None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(rc_params(theme)):
        figure = Figure(figsize=(9, 1.4 + _ROW_INCHES * len(shown)), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        for verdict, (colour, mark, name) in _LOOKS.items():
            rows = [at for at, line in enumerate(shown) if reached(line) is verdict]
            spans = [by_target(shown[at]) for at in rows]
            axes.errorbar(
                [middle for _, middle, _ in spans],
                rows,
                xerr=[
                    [middle - least for least, middle, _ in spans],
                    [most - middle for _, middle, most in spans],
                ],
                linestyle="",
                marker=mark,
                markersize=6,
                capsize=2,
                color=COLOURS[theme][colour],
                label=name,
            )
        axes.axvline(1, color=mpl.rcParams["axes.labelcolor"], linewidth=1.2)
        axes.set_yticks(range(len(shown)), [line["line"] for line in shown])
        axes.invert_yaxis()
        axes.set_xlabel("measured by target: right of the rule is reached")
        _label_ratios(axes, shown)
        figure.legend(loc="outside upper center", ncols=2)
        newest = max(shown, key=lambda line: line["date"])
        figure.supxlabel(
            f"{newest['cpu']}, {newest['shape']}, medians of {newest['rounds']} rounds, bars from"
            f" the least to the largest; {newest['date'][:10]}",
            fontsize="x-small",
        )
        figure.savefig(path)


def _label_ratios(axes: Any, shown: list[dict[str, Any]]) -> None:
    """Ticks at simple numbers, and beside each row its ratio and target."""
    spans = [by_target(line) for line in shown]
    least, most = min(0.8, *(s[0] for s in spans)), max(1.25, *(s[2] for s in spans))
    axes.set_xlim(least / 1.1, most * 1.1)
    ticks = [tick for tick in _TICKS if least / 1.1 < tick < most * 1.1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    for at, line in enumerate(shown):
        text = f"{line['ratio']:.2f} ({sign(line)} {line['target']:g})"
        axes.annotate(
            text,
            (1, at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
        )
