"""Lists of whole numbers as values of options: ``-t 1,2,4``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class Counts(click.ParamType):  # type: ignore[type-arg]  # click is generic since 8.2
    """Whole numbers with commas between them.

    Args:
        low: The least that each may be.
        high: The most; None: any.
        count: How many there must be; None: at least one.
    """

    name = "counts"

    def __init__(self, low: int, high: int | None = None, count: int | None = None) -> None:
        self._low, self._high, self._count = low, high, count

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """A text of the command line, or a number or list of a config file, as a tuple."""
        if isinstance(value, str):
            value = value.split(",")
        items: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
        texts = [str(item).strip() for item in items]
        if all(text.isascii() and text.isdecimal() and len(text) < 10 for text in texts):
            numbers = tuple(map(int, texts))
            high = max(numbers) if self._high is None else self._high
            right_count = self._count is None or len(numbers) == self._count
            if right_count and min(numbers) >= self._low and max(numbers) <= high:
                return numbers
        many = "whole numbers" if self._count is None else f"{self._count} whole numbers"
        above = f"from {self._low}" + (f" to {self._high}" if self._high else "")
        self.fail(f"expected {many} {above}, with commas between, got {','.join(texts)!r}")
