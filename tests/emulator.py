"""A terminal emulator of another hand (pyte): what a screen shows, and programs that run on it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Mapping

import pyte

PATIENCE_S = 10  # a failing test ends; a passing one never waits for it


class Emulator:
    """A screen, as a file; rows that scrolled away are kept."""

    def __init__(self, columns: int, lines: int) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.Stream(self.screen)
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)
        self._stream.feed(text.replace("\n", "\r\n"))  # as the system's terminal driver does

    def flush(self) -> None:
        pass

    def size(self) -> os.terminal_size:
        return os.terminal_size((self.screen.columns, self.screen.lines))

    def text(self) -> list[str]:
        """All rows from the first on, without what is blank at their ends."""
        columns = range(self.screen.columns)
        above = ["".join(row[x].data for x in columns) for row in self.screen.history.top]
        rows = [row.rstrip() for row in [*above, *self.screen.display]]
        return rows[: max((n for n, row in enumerate(rows, 1) if row), default=0)]


class Program:
    """A Python script in a pseudo terminal that is its own; ends with the ``with`` block."""

    def __init__(
        self, script: str, environment: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self._fd, slave = pty.openpty()
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        owned = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"  # Ctrl-C reaches it
        self.process = subprocess.Popen(
            [sys.executable, "-c", owned + script],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        os.close(slave)
        self.terminal = Emulator(columns, lines)
        self.terminal.screen.write_process_input = self.type  # where the cursor is, when asked
        self._feed = pyte.ByteStream(self.terminal.screen).feed
        self.raw = b""

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_until(self, seen: Callable[[str], object]) -> str:
        """Read until ``seen`` is true of what the terminal shows."""
        while not seen(text := "\n".join(self.terminal.text())):
            assert self._read(), f"ended with {text!r}"
        return text

    def wait_for(self, pattern: str) -> str:
        """Read until a regular expression is found in what the terminal shows."""
        return self.wait_until(lambda text: re.search(pattern, text, re.DOTALL))

    def wait_for_prompt(self, number: int) -> str:
        """Read until the terminal ends with its ``number``-th prompt, which is empty."""
        return self.wait_until(
            lambda text: (
                len(re.findall("^>>>", text, re.MULTILINE)) == number
                and re.search(r"^>>>( Ask, or /help)?\Z", text, re.MULTILINE)
            )
        )

    def exit_code(self) -> int:
        """Read to the end."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def hang_up(self) -> int:
        """Close the terminal, as a window that is closed; the exit code."""
        os.close(self._fd)
        self._fd = -1
        return self.process.wait(PATIENCE_S)

    def text(self) -> list[str]:
        return self.terminal.text()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], PATIENCE_S)
        assert ready, f"nothing more came after {self.text()}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.raw += data
        self._feed(data)
        return bool(data)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self._fd >= 0:
            os.close(self._fd)
