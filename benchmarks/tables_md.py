"""Markdown tables of figures for the pages that ``make docs`` writes."""

from __future__ import annotations

from collections.abc import Sequence


def table(heading: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """A table whose first column names the rows; a dash where a figure is missing."""
    lines = [list(heading), ["---"] + ["---:"] * (len(heading) - 1)]
    lines += [[number(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(cell: str | float | None) -> str:
    """Three digits or so."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    return f"{cell:.0f}" if cell >= 100 else f"{cell:.1f}" if cell >= 1 else f"{cell:.2f}"
