"""A real terminal for programs under test: typed answers in, what was shown out."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

PATIENCE_S = 30  # a failing test ends; a passing one never waits for it


class Terminal:
    """A program on a pseudo-terminal of a given width; a context that ends it."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], columns: int = 80
    ) -> None:
        sizes = ("COLUMNS", "LINES")  # pytest-xdist sets them; they would hide the terminal's own
        variables = {name: value for name, value in environment.items() if name not in sizes}
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            list(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"TERM": "xterm"} | variables,
            start_new_session=True,
        )
        os.close(slave)
        self._seen = 0
        self.shown = ""

    def wait_for(self, text: str) -> str:
        """Read until ``text`` is shown, after what was waited for before; return all so far."""
        while (at := self.shown.find(text, self._seen)) < 0:
            assert self._read(), f"ended before {text!r}: {self.shown!r}"
        self._seen = at + len(text)
        return self.shown

    def type(self, text: str) -> None:
        """Type ``text``; "\\n" is the enter key."""
        os.write(self._master, text.replace("\n", "\r").encode())

    def finish(self) -> tuple[int, str]:
        """Read to the end; the exit code, and all that was shown."""
        while self._read():
            pass
        return self._process.wait(PATIENCE_S), self.shown

    def hang_up(self) -> None:
        """Close the terminal and wait for the program's end."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDONLY)
        self._process.wait(PATIENCE_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE_S)
        assert ready, f"nothing more came after {self.shown!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)
