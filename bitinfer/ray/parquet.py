"""Rows and answers in Parquet files, as the JSON lines that batches are made of.

A column is a field of a row. Nulls stand for fields that are not there; ``body``, ``response`` and
``error`` may be JSON texts, which is how answers are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
from pyarrow import parquet

from bitinfer.batch.results import columns_of
from bitinfer.batch.rows import Line
from bitinfer.errors import BatchError
from bitinfer.formats.new_file import new_file

_JSON = ("body", "response", "error")
_ROWS = 1024  # that are in memory at once
_SCHEMA = pyarrow.schema([(name, pyarrow.string()) for name in ("id", "custom_id", *_JSON[1:])])


def parquet_lines(path: Path) -> Iterator[Line]:
    """The rows of a file, each as JSON.

    Raises:
        BatchError: it is no Parquet file, is damaged, or holds what JSON has no form for.
        OSError: it cannot be read.
    """
    number = 0
    with path.open("rb") as file:
        try:
            for batch in parquet.ParquetFile(file).iter_batches(_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _line(row)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError, TypeError) as cause:
            raise BatchError(f"{path}, after row {number}: expected Parquet: {cause}") from None


def write_parquet(path: Path, lines: Iterable[bytes]) -> None:
    """Write answers, all or none.

    Raises:
        OSError: it cannot be written.
    """
    rest = iter(lines)
    with new_file(path) as file, parquet.ParquetWriter(file, _SCHEMA) as writer:
        while rows := [columns_of(line) for line in islice(rest, _ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(rows, _SCHEMA))


def _line(row: dict[str, Any]) -> bytes:
    given = _given(row)
    for name in _JSON:
        if isinstance(text := given.get(name), str):
            given[name] = msgspec.Raw(text.encode())
    return msgspec.json.encode(given)


def _given(value: Any) -> Any:
    """``value`` without nulls in its objects."""
    if isinstance(value, dict):
        return {name: _given(inner) for name, inner in value.items() if inner is not None}
    return [_given(inner) for inner in value] if isinstance(value, list) else value
