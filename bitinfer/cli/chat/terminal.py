"""The terminal as a device: what it can do, what it echoes, and the signals that come from it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

_LEAVING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # asked to end, or the terminal is closed; Windows has only the first


def can_redraw(file: TextIO) -> bool:
    """Whether colours and movements of the cursor are understood, and wanted."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb")
    return file.isatty() and not plain


def reflows() -> bool:
    """Whether the terminal breaks long rows anew when it becomes narrower: nearly all but xterm."""
    return "XTERM_VERSION" not in os.environ


@contextmanager
def without_echo(on_resume: Callable[[], None]) -> Iterator[None]:
    """Show no keys while a reply is written: what is typed then appears at the next prompt.

    Ctrl-C does not drop what is on its way to the terminal, which may end within an escape code.
    ``on_resume`` is called when the program goes on after Ctrl-Z: others wrote meanwhile.
    """
    if sys.platform == "win32":
        yield
        return
    import termios

    def set_mode(mode: list[Any]) -> None:
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(sys.stdin, termios.TCSANOW, mode)

    def resume(_: int, __: FrameType | None) -> None:
        set_mode(quiet)
        on_resume()

    try:
        before = termios.tcgetattr(sys.stdin)
    except termios.error:  # not a terminal
        yield
        return
    quiet = list(before)
    quiet[3] = before[3] & ~termios.ECHO | termios.NOFLSH
    set_mode(quiet)
    old = signal.signal(signal.SIGCONT, resume)
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, old)
        set_mode(before)


class Interrupts:
    """Ctrl-C and requests to end, heard only where they may be.

    Elsewhere (half of an escape code is written, a message is being saved) they wait.
    """

    def __init__(self) -> None:
        """Handle the signals from now on; `close` gives them back."""
        self._hear: Callable[[BaseException], None] | None = None
        self._waiting: int | None = None
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, *_LEAVING)
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup
        }

    def close(self) -> None:
        """Handle no more signals."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def allowed(self, hear: Callable[[BaseException], None] | None = None) -> Iterator[None]:
        """Signals become exceptions in here: KeyboardInterrupt, or SystemExit.

        They are raised where the program is, or given to ``hear``.
        """
        self._hear = hear or _raise
        try:
            self._tell()
            yield
        finally:
            self._hear = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._waiting not in _LEAVING:  # Ctrl-C does not replace a request to end
            self._waiting = number
        self._tell()

    def _tell(self) -> None:
        if self._hear is None or self._waiting is None:
            return
        number, self._waiting = self._waiting, None
        self._hear(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))


def _raise(error: BaseException) -> None:
    raise error
