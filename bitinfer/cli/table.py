"""Tables for people, in as many columns as the terminal has room for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bitinfer.bench.tables import without_columns

_WIDTH_OF_A_PIPE = 80
_LARGE = 10_000  # columns that no table needs


def console() -> Console:
    """Stdout: as wide as the terminal, 80 columns where there is none."""
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    return Console(width=width, highlight=False, soft_wrap=False)


def print_table(
    rows: list[list[str]], to: Console, *, left: Sequence[str] = (), drop: Sequence[str] = ()
) -> None:
    """Print rows, the first of which is the heading.

    Args:
        rows: Cells of text.
        to: Where to.
        left: Headings of columns that are aligned to the left; the others are numbers.
        drop: Headings of columns to leave out, the first one first, until the table fits.
    """
    unbounded = to.options.update(max_width=_LARGE)
    table = _table(rows, left)
    for name in drop:
        if Measurement.get(to, unbounded, table).maximum <= to.width:
            break
        rows = without_columns(rows, [name])
        table = _table(rows, left)
    to.print(table)


def _table(rows: list[list[str]], left: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table
