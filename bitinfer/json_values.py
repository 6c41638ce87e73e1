"""``JsonValues``: typed access to the values of a config file; refusals name the place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitinfer.errors import ConfigError
from bitinfer.json_file import shown


class JsonValues:
    """The parsed values and what they are of; each access raises ConfigError for a wrong value.

    Attributes:
        values: The JSON object.
        where: Its name, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def error(self, name: str, expected: str, got: object) -> ConfigError:
        """What to raise of a value: a ConfigError of one line."""
        seen = "nothing" if got is None else shown(repr(got))
        return ConfigError(f"{self.where}: {name}: expected {expected}, got {seen}")

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``; absent or null is ``default``."""
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int or not low <= value <= high:  # bool is no number here
            raise self.error(name, f"a whole number from {low} to {high}", value)
        return value

    def integer_or_none(self, name: str, low: int, high: int) -> int | None:
        """Like ``integer``; absent or null is None."""
        return None if self.values.get(name) is None else self.integer(name, low, high)

    def number(self, name: str, above: float, most: float) -> float:
        """A number above ``above``, at most ``most``."""
        value: Any = self.values.get(name)
        if type(value) not in (int, float) or not above < value <= most:
            raise self.error(name, f"a number above {above:g}, at most {most:g}", value)
        return float(value)

    def number_or_none(self, name: str, above: float, most: float) -> float | None:
        """Like ``number``; absent or null is None."""
        return None if self.values.get(name) is None else self.number(name, above, most)

    def boolean(self, name: str) -> bool:
        """True or false; absent or null is false."""
        value = self.values.get(name)
        if value is not None and type(value) is not bool:
            raise self.error(name, "true or false", value)
        return bool(value)

    def text(self, name: str) -> str:
        """Text that is not empty."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            raise self.error(name, "a name", value)
        return value

    def text_or_none(self, name: str) -> str | None:
        """Like ``text``; absent or null is None."""
        return None if self.values.get(name) is None else self.text(name)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of ``choices``."""
        value = self.values.get(name)
        if value not in choices:
            raise self.error(name, " or ".join(choices), value)
        return str(value)

    def names(self, name: str) -> tuple[str, ...]:
        """A list of texts; absent or null is none of them."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise self.error(name, "a list of names", value)
        return tuple(value)

    def object_or_none(self, name: str) -> Mapping[str, Any] | None:
        """A JSON object; absent or null is None."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, "an object or null", value)
        return value
