"""Records as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from bitinfer.bench.record import Record

PART_COLUMNS = {"weights": ("ternary", "float"), "head": ("head",), "KV": ("kv",)}  # MB per token
_COLUMNS = (
    *("model", "packing", "test", "threads", "tokens/s", "slowest-fastest"),
    *(*PART_COLUMNS, "MB/token", "GB/s", "roofline", "J/token"),
)


def record_rows(records: list[Record]) -> list[list[str]]:
    """A heading and a row for each record, as text for people."""
    rows = [list(_COLUMNS)]
    for record in records:
        joules = record.joules_per_token
        read = [record.part_bytes(*parts) for parts in PART_COLUMNS.values()]
        row = [
            record.model,
            record.packing,
            record.test,
            str(record.threads),
            f"{record.tokens_per_s:.1f}",
            f"{record.tokens_per_s_min:.1f}-{record.tokens_per_s_max:.1f}",
            *("" if num_bytes is None else f"{num_bytes / 1e6:.2f}" for num_bytes in read),
            f"{record.bytes_per_token / 1e6:.2f}",
            f"{record.gb_per_s:.1f}",
            f"{record.roofline_share:.0%}",
            "" if joules is None else f"{joules:.3g}",
        ]
        rows.append(row)
    return rows


def without_columns(rows: list[list[str]], names: Iterable[str]) -> list[list[str]]:
    """``rows`` with the columns left out whose heading is among ``names``."""
    dropped = set(names)
    kept = [index for index, name in enumerate(rows[0]) if name not in dropped]
    return [[row[index] for index in kept] for row in rows]


def empty_columns(rows: list[list[str]]) -> list[str]:
    """Headings of the columns that hold nothing."""
    columns = zip(*rows, strict=True)
    return [name for name, *cells in columns if not any(cells)]


def markdown(rows: list[list[str]], left: Sequence[str] = ("model", "packing", "test")) -> str:
    """A Markdown table; columns named in ``left`` are aligned to the left, the others to the right.

    Cells are padded, so that the text can be read as it is.
    """
    heading, *_ = rows
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.replace("|", "\\|").ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(row, widths, heading, strict=True)
        )
        lines.append(f"| {' | '.join(cells)} |")
    rules = (
        "-" * width if name in left else "-" * (width - 1) + ":"
        for width, name in zip(widths, heading, strict=True)
    )
    lines.insert(1, f"| {' | '.join(rules)} |")
    return "\n".join(lines)


def csv_text(records: list[Record]) -> str:
    """Every field of every record as CSV; lists and objects as JSON."""
    rows = [record.to_json() for record in records]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}
        )
    return out.getvalue()
