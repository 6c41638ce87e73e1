"""The end of a terminal's text that is written again and again while it grows.

Rows that stay are written once and scroll away as any text does. Rows in work are at most as many
as the window shows, and only from the first that changed are they written again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO

from rich.text import Text

# Without wrapping, a row takes one row even where the terminal draws a character wider than we
# think; a row in work that wrapped would break the count of rows to go up.
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR_BELOW = "\x1b[J"


class Region:
    """Rows in work at the end of the text; the cursor stands on the last one."""

    def __init__(
        self, file: IO[str], get_size: Callable[[], os.terminal_size], *, reflows: bool = True
    ) -> None:
        """Begin at the cursor, which stands at the start of an empty row.

        Args:
            file: The terminal.
            get_size: Its size now.
            reflows: Whether the terminal breaks long rows anew when it becomes narrower.
        """
        self._file = file
        self._get_size = get_size
        self._reflows = reflows
        self._rows = [""]  # as last written
        self._columns = get_size().columns  # then

    def write(self, settled: list[str], working: list[str]) -> None:
        """Put ``settled`` before the rows in work, for good, and ``working`` in their place.

        A row of either fits the width, and ``working`` the height less one.
        """
        rows = [*settled, *(working or [""])]
        size = self._get_size()
        if size.columns == self._columns:
            same = self._unchanged(rows)
            up = len(self._rows) - 1 - same
        else:
            same, up = 0, self._height(size.columns) - 1
        up = min(up, size.lines - 1)  # what is above has scrolled away
        self._columns = size.columns
        if settled or rows != self._rows or not same:
            go = "\r" + (f"\x1b[{up}A" if up else "")
            text = "\r\n".join(rows[same:])
            self._file.write(f"{_NO_WRAP}{go}{_CLEAR_BELOW}{text}{_WRAP}")
            self._file.flush()
        self._rows = rows[len(settled) :]

    def forget(self) -> None:
        """Begin anew at the cursor: something else was written meanwhile."""
        self._rows = [""]

    def _unchanged(self, rows: list[str]) -> int:
        """Leading rows that need not be written; never the last, on which the cursor stands."""
        most = min(len(rows), len(self._rows)) - 1
        return next((n for n in range(most) if rows[n] != self._rows[n]), most)

    def _height(self, columns: int) -> int:
        """Rows that the region takes now that the terminal has that many columns."""
        if not self._reflows:
            return len(self._rows)
        widths = (Text.from_ansi(row).cell_len for row in self._rows)
        return sum(max(1, -(-width // columns)) for width in widths)
