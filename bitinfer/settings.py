"""The user's settings file: TOML, settings of all commands first, then a table per command.

This module knows where the file is and what stands in which line; which settings there are, and
what their values may be, the commands say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitinfer.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 1 << 16  # nobody writes that much by hand, and `place` reads it line by line


def default_path() -> Path:
    """Where the file is, unless the user says otherwise; it need not exist."""
    import platformdirs

    return platformdirs.user_config_path("bitinfer", appauthor=False) / "config.toml"


@dataclass(frozen=True)
class SettingsFile:
    """A file that was read.

    Attributes:
        path: Where.
        text: All of it.
    """

    path: Path
    text: str = ""

    @classmethod
    def read(cls, path: Path, *, required: bool) -> SettingsFile:
        """Read a file; one that is missing is empty unless it is ``required``.

        Raises:
            ConfigError: it cannot be read or is not TOML; the message names the line.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            if required:
                raise ConfigError(f"{path}: settings file not found") from None
            raw = b""
        except OSError as cause:
            raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from None
        if len(raw) > _MOST_BYTES:
            raise ConfigError(f"{path}: expected at most {_MOST_BYTES} bytes of settings, got more")
        try:
            found = cls(path, raw.decode("utf-8-sig").replace("\r\n", "\n"))
        except UnicodeDecodeError as cause:
            line = raw[: cause.start].count(b"\n") + 1
            raise ConfigError(f"{path} line {line}: expected UTF-8, got another encoding") from None
        found.values  # noqa: B018 (parses)
        return found

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """What the file says.

        Raises:
            ConfigError: it is not TOML; the message names the line and shows it.
        """
        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as cause:
            raise ConfigError(f"{self.path}{_syntax_error(str(cause), self.text)}") from None

    def table(self, name: str) -> Mapping[str, Any]:
        """The table of a command; empty if there is none (a value may have the same name)."""
        found = self.values.get(name)
        return found if isinstance(found, dict) else {}

    def place(self, *keys: str) -> str:
        """Where a value stands, for messages: the file, and the line in which the value ends."""
        lines = self.text.splitlines(keepends=True)
        for count in range(1, len(lines) + 1):
            try:
                inside: Any = tomllib.loads("".join(lines[:count]))
            except tomllib.TOMLDecodeError:
                continue  # in the middle of a value of several lines
            for key in keys:
                inside = inside.get(key) if isinstance(inside, dict) else None
            if inside is not None:
                return f"{self.path} line {count}"
        return str(self.path)


def _syntax_error(message: str, text: str) -> str:
    """What the parser says, with the line where it stopped."""
    lines = text.splitlines()
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    number = int(found[1]) if found and found[1] else len(lines)
    problem = message[: found.start()] if found else message
    shown = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    return f" line {number}: {problem[:1].lower()}{problem[1:]}, got {shown!r}"
