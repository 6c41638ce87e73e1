"""How a reply appears while it is written: as live markdown, or as wrapped text."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from bitinfer.cli.chat.terminal import can_redraw, reflows
from bitinfer.cli.text import WordWrap, printable
from bitinfer.thinking import CLOSE, OPEN, Part, ThinkingSplitter

if TYPE_CHECKING:
    from rich.console import Console

_REDRAW_S = 0.05  # at most this often, for slow lines
_REDRAW_SHARE = 10  # and a redraw may take a tenth of the time
_LONGEST_WAIT_S = 1.0
_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"
_WAITING, _THINKING = "…", "thinking …"


class Writer(Protocol):
    """Shows one part of a reply."""

    def add(self, text: str) -> None:
        """Take a piece."""

    def finish(self) -> None:
        """Show all that is left, and end the line."""

    def begin_anew(self) -> None:
        """Others wrote to the terminal, and the cursor is on an empty row."""


class TextWriter:
    """Text wrapped at words, each word as soon as its end is known."""

    def __init__(self, *, dim: bool = False) -> None:
        self._wrap = WordWrap(terminal_size().columns)
        self._marks = (_DIM, _NORMAL) if dim else ("", "")

    def add(self, text: str) -> None:
        """Take a piece."""
        self._write(self._wrap.add(text))

    def finish(self) -> None:
        """Show the last word, and end the line."""
        self._write(self._wrap.finish() + "\n")

    def begin_anew(self) -> None:
        """Go on where the cursor is."""

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(self._marks[0] + text + self._marks[1])
            sys.stdout.flush()


class MarkdownWriter:
    """Markdown that is laid out while it comes, a few times a second."""

    def __init__(
        self,
        console: Console | None = None,
        get_size: Callable[[], os.terminal_size] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from bitinfer.cli.chat.document import MarkdownDocument
        from bitinfer.cli.chat.region import Region

        self._get_size = get_size or terminal_size
        console = console or markdown_console()
        self._document = MarkdownDocument(console)
        self._region = Region(console.file, self._get_size, reflows=reflows())
        self._clock = clock
        self._due_s = 0.0

    def add(self, text: str) -> None:
        """Take a piece."""
        self._document.add(text)
        start_s = self._clock()
        if start_s < self._due_s:
            return
        size = self._get_size()
        self._region.write(*self._document.take(size.columns, max(size.lines - 1, 1)))
        end_s = self._clock()
        pause_s = max(_REDRAW_S, (end_s - start_s) * _REDRAW_SHARE)
        self._due_s = end_s + min(pause_s, _LONGEST_WAIT_S)

    def finish(self) -> None:
        """Show all that is left, and end the line."""
        self._region.write(self._document.finish(self._get_size().columns), [])

    def begin_anew(self) -> None:
        """Write the block in work again, where the cursor is."""
        self._region.forget()


class ReplyView:
    """Shows a reply: its thinking dimmed or hidden, its answer as the settings want it."""

    def __init__(self, *, live: bool, markdown: bool, thinking: bool) -> None:
        """Begin a reply; ``live``: the terminal can redraw."""
        self._live = live
        self._markdown = live and markdown
        self._thinking = thinking
        self._splitter = ThinkingSplitter()
        self._writer: Writer | None = None
        self._shown: Part | None = None  # the last part that was written
        self._wait(_WAITING)

    def add(self, piece: str) -> None:
        """Take a piece of the model's text."""
        self._show(self._splitter.add(printable(piece)))
        if self._writer is None and self._splitter.thinking and not self._thinking:
            self._wait(_THINKING)

    def finish(self) -> None:
        """Show all that is left; the cursor is then at the start of a line."""
        self._show(self._splitter.finish())
        if self._writer is not None:
            self._end_part()
        else:
            self._wait("")

    def begin_anew(self) -> None:
        """Others wrote to the terminal, and the cursor is on an empty row."""
        if self._writer is not None:
            self._writer.begin_anew()

    def _show(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if part.thinking and not self._thinking:
                continue
            if self._writer is None or (self._shown and self._shown.thinking != part.thinking):
                self._begin_part(part)
            assert self._writer is not None
            self._writer.add(part.text)
            self._shown = part

    def _begin_part(self, part: Part) -> None:
        if self._writer is None:
            self._wait("")
        else:
            self._end_part()
            sys.stdout.write("\n")
        if not part.thinking and self._markdown:
            self._writer = MarkdownWriter()
            return
        self._writer = TextWriter(dim=part.thinking and self._live)
        if part.thinking and not self._live:
            self._writer.add(OPEN + "\n")

    def _end_part(self) -> None:
        assert self._writer is not None
        if self._shown and self._shown.thinking and not self._live:
            self._writer.add("\n" + CLOSE)
        self._writer.finish()

    def _wait(self, sign: str) -> None:
        """Show a sign of life at the start of the line, in place of the last one."""
        if self._live:
            sys.stdout.write(f"\r\x1b[K{_DIM}{sign}{_NORMAL}" if sign else "\r\x1b[K")
            sys.stdout.flush()


def terminal_size() -> os.terminal_size:
    """The terminal's size now; 80 x 24 where it does not tell."""
    return shutil.get_terminal_size()


def markdown_console() -> Console:
    """A console that renders for stdout."""
    from rich.console import Console

    from bitinfer.cli.chat.elements import THEME

    return Console(
        file=sys.stdout,
        force_terminal=True,
        theme=THEME,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def dim(text: str) -> str:
    """``text`` in a weak colour, where that is understood."""
    return f"{_DIM}{text}{_NORMAL}" if can_redraw(sys.stdout) else text
