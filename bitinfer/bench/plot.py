"""Records as a picture: the roofline, the bytes read, tokens/s by threads and by context.

Needs the extra `plot`. Every test has a colour and a mark of its own in all panels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullFormatter

from bitinfer.bench.plot_style import COLOURS, rc_params
from bitinfer.bench.record import Record
from bitinfer.bench.tables import PART_COLUMNS

_MARKS = "osD^vP"
_PANEL_INCHES = (4.4, 4.2)
_CAPTION_CHARACTERS = 78  # to a panel's width
_PART_SHADES = (0.75, 0.45, 0.2)  # of ink on the paper: weights, head, KV
_LOGARITHMIC_FROM = 4  # times that the fastest is faster than the slowest


def draw(records: list[Record], path: Path, *, theme: str = "light") -> None:
    """Write one picture of a measurement, with as many panels as there is something to show.

    Always the roofline, and what the bytes are of if the records say so; speed by threads and by
    context where the records have several of them.

    Args:
        records: Of one run of ``bench``.
        path: Ends with .png or .svg.
        theme: ``light`` or ``dark``.

    Raises:
        OSError: the file cannot be written.
    """
    most_threads = max(record.threads for record in records)
    least_depth = min(record.depth for record in records)
    at_most_threads = [record for record in records if record.threads == most_threads]
    at_least_depth = [record for record in records if record.depth == least_depth]
    threads = f"{most_threads} thread{'s' * (most_threads > 1)}"
    panels: list[_Panel] = [partial(_roofline, at_most_threads, f"roofline, {threads}")]
    split = [record for record in at_most_threads if record.bytes_by_part]
    if split:
        panels.append(partial(_bytes_by_part, split, f"bytes per token, {threads}"))
    if len(at_least_depth) < len(records):
        panels.append(partial(_by_context, at_most_threads, f"by context, {threads}"))
    if len(at_most_threads) < len(records):
        after = f", after {least_depth} tokens" if least_depth else ""
        panels.append(partial(_by_threads, at_least_depth, f"by threads{after}"))
    with mpl.rc_context(rc_params(theme)):
        columns = 2 if len(panels) == 4 else len(panels)
        rows = -(-len(panels) // columns)
        width, height = _PANEL_INCHES
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        styles = _Styles(records, theme)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, panel in zip(grid, panels, strict=True):
            panel(axes, styles)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))  # a test at several depths once
        figure.legend(named.values(), named, loc="outside upper center", ncols=3 * columns)
        caption = textwrap.fill(_caption(records[0]), _CAPTION_CHARACTERS * columns)
        figure.supxlabel(caption, fontsize="x-small")
        figure.savefig(path, dpi=160)


class _Styles:
    """A colour and a mark for each test, whatever its depth."""

    def __init__(self, records: list[Record], theme: str) -> None:
        self.names = list(dict.fromkeys(map(self.name, records)))
        self._colours = COLOURS[theme]

    @staticmethod
    def name(record: Record) -> str:
        return record.test.partition(" @")[0]

    def of(self, name: str) -> dict[str, str]:
        index, count = self.names.index(name), len(self._colours)
        mark = _MARKS[(index + index // count) % len(_MARKS)]
        return {"color": self._colours[index % count], "marker": mark, "label": name}


_Panel = Callable[[Axes, _Styles], None]
_Value = Callable[[Record], float]


def _caption(record: Record) -> str:
    machine, n = record.machine, record.repeats
    runs = (
        f"medians of n = {n} runs, bars from the slowest to the fastest" if n > 1 else "n = 1 run"
    )
    commit = f", commit {machine['commit']}" if machine["commit"] else ""
    return (
        f"{record.model}, {record.packing}, {record.head} head, {record.kv_cache} cache,"
        f" {record.weights}; {runs}."
        f" {machine['cpu']}, {record.isa}, {machine['cores']} cores,"
        f" {machine['memory'] / 2**30:.0f} GiB; {machine['date'][:10]}{commit}"
    )


def _roofline(records: list[Record], title: str, axes: Axes, styles: _Styles) -> None:
    """Speed over bytes per token: memory allows what lies below the line of its bandwidth."""
    axes.set(title=title, xlabel="bytes read per token (MB)", ylabel="tokens/s")
    _points(axes, records, styles, lambda record: record.bytes_per_token / 1e6, line="")
    read = max(record.roofline_gb_per_s for record in records)
    megabytes = [record.bytes_per_token / 1e6 for record in records]
    ends = [min(megabytes) / 3, max(megabytes) * 3]
    limits = [read * 1e3 / end for end in ends]
    axes.plot(ends, limits, color=mpl.rcParams["axes.labelcolor"], linewidth=1.2)
    axes.annotate(  # right of the line's upper end, where nothing can be
        f"memory: {read:.1f} GB/s",
        (ends[0], limits[0]),
        xytext=(12, 0),
        textcoords="offset points",
        verticalalignment="center",
    )
    _logarithmic(axes.xaxis, FuncFormatter(lambda value, _: f"{value:g}"))
    _logarithmic(axes.yaxis, EngFormatter(sep=" "))


def _bytes_by_part(records: list[Record], title: str, axes: Axes, styles: _Styles) -> None:
    """A bar for each test, split into what is read; beside it how fast that was."""
    shown = list(dict.fromkeys(record.test for record in records))
    rows = [next(record for record in records if record.test == test) for test in shown]
    left = [0.0] * len(rows)
    for (name, parts), shade in zip(PART_COLUMNS.items(), _PART_SHADES, strict=True):
        widths = [(record.part_bytes(*parts) or 0) / 1e6 for record in rows]
        ink = mpl.rcParams["axes.labelcolor"]
        axes.barh(shown, widths, left=left, height=0.6, color=(ink, shade), label=name)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    for at, record in enumerate(rows):
        text = f"{record.gb_per_s:.1f} GB/s, {record.roofline_share:.0%}"
        axes.annotate(
            text, (left[at], at), (4, 0), textcoords="offset points", verticalalignment="center"
        )
    axes.set(title=title, xlabel="MB per token; beside it GB/s, share of the roofline")
    axes.set_xlim(right=1.45 * max(left))  # room for the texts
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.legend(loc="best", title_fontsize="small")


def _by_threads(records: list[Record], title: str, axes: Axes, styles: _Styles) -> None:
    axes.set(title=title, xlabel="threads")
    axes.set_xticks(sorted({record.threads for record in records}))
    _speeds(axes, records, styles, lambda record: record.threads)


def _by_context(records: list[Record], title: str, axes: Axes, styles: _Styles) -> None:
    axes.set(title=title, xlabel="context before the test (tokens)")
    _speeds(axes, records, styles, lambda record: record.depth)


def _speeds(axes: Axes, records: list[Record], styles: _Styles, x: _Value) -> None:
    """A line for each test; a logarithmic scale where prefill is far above decode."""
    axes.set_ylabel("tokens/s")
    _points(axes, records, styles, x, line="-")
    rates = [record.tokens_per_s for record in records]
    if max(rates) < _LOGARITHMIC_FROM * min(rates):
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    else:
        _logarithmic(axes.yaxis, EngFormatter(sep=" "))


def _logarithmic(axis: Axis, labels: Formatter) -> None:
    """A logarithmic scale; of less than two decades 2 and 5 are named too."""
    low, high = axis.get_data_interval()
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5)))
    axis.set_major_formatter(labels)
    axis.set_minor_formatter(NullFormatter())


def _points(axes: Axes, records: list[Record], styles: _Styles, x: _Value, *, line: str) -> None:
    """Medians with bars from the slowest to the fastest run."""
    for name in styles.names:
        shown = sorted((record for record in records if styles.name(record) == name), key=x)
        median = [r.tokens_per_s for r in shown]
        below = [r.tokens_per_s - r.tokens_per_s_min for r in shown]
        above = [r.tokens_per_s_max - r.tokens_per_s for r in shown]
        axes.errorbar(
            [x(r) for r in shown],
            median,
            yerr=[below, above],
            linestyle=line,
            linewidth=1.3,
            markersize=5,
            capsize=2,
            **styles.of(name),  # type: ignore[arg-type]  # texts all
        )
