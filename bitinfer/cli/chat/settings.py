"""What ``/set`` changes: the sampling of replies, and how they are shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bitinfer.sampling import SETTINGS, setting_from_text

if TYPE_CHECKING:
    from bitinfer.model import Model

# Name -> (choices, what it is); the first choice is the default.
SWITCHES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "markdown": (("on", "off"), "Lay out replies; off: text as the model writes it"),
    "thinking": (("show", "hide"), "What a model thinks before it answers"),
    "stats": (("off", "on"), "A line of figures below each reply"),
}
NAMES = (*SETTINGS, "max_tokens", *SWITCHES)


class ChatSettings:
    """Values that were set; what was not is the model's default."""

    def __init__(self, model: Model, values: Mapping[str, Any]) -> None:
        """Begin with ``values``; those that are None are not set."""
        self._defaults = {name: getattr(model.sampling, name) for name in SETTINGS}
        self._defaults["max_tokens"] = model.max_tokens
        self._defaults |= {name: choices[0] for name, (choices, _) in SWITCHES.items()}
        self._values = {name: v for name, v in values.items() if v is not None}

    def __getitem__(self, name: str) -> Any:
        return self._values.get(name, self._defaults[name])

    @property
    def sampling(self) -> dict[str, Any]:
        """Options of a generation: those that were set."""
        return {name: v for name, v in self._values.items() if name not in SWITCHES}

    def read(self, name: str, text: str) -> None:
        """Set a value as it is typed; "default" resets it.

        Raises:
            ValueError: there is no such setting (the nearest one is named), or the value is out of
                range (which is named).
        """
        name = known_name(name)
        if text == "default":
            self._values.pop(name, None)
        elif name in SWITCHES:
            choices = SWITCHES[name][0]
            if text not in choices:
                raise ValueError(f"{name}: expected {' or '.join(choices)}, got {text!r}")
            self._values[name] = text
        elif name == "max_tokens":
            if not text.isdecimal() or int(text) < 1:
                raise ValueError(f"{name}: expected a whole number from 1 up, got {text!r}")
            self._values[name] = int(text)
        else:
            self._values[name] = setting_from_text(name, text)

    def lines(self) -> Iterator[str]:
        """All values, one a line; what was set says the default too."""
        width = max(map(len, NAMES))
        for name in NAMES:
            set_here = name in self._values and self[name] != self._defaults[name]
            default = f"  (default {_shown(self._defaults[name])})" if set_here else ""
            yield f"{name:{width}}  {_shown(self[name])}{default}"

    def about(self, name: str) -> str:
        """One setting: its value, what it is and what it may be."""
        name = known_name(name)
        if name in SWITCHES:
            choices, text = SWITCHES[name]
            bounds = " or ".join(choices)
        elif name == "max_tokens":
            text, bounds = "Most tokens of a reply", "from 1 up"
        else:
            text = SETTINGS[name]["help"]
            bounds = f"{SETTINGS[name]['low']:g} to {SETTINGS[name]['high']:g}"
        return f"{name} {_shown(self[name])} ({bounds})\n{text}"


def known_name(name: str) -> str:
    """The setting that is meant.

    Raises:
        ValueError: there is none of that name; the nearest one is named.
    """
    plain = name.lower().replace("-", "_")
    if plain in NAMES:
        return plain
    raise ValueError(f"unknown setting {name!r}: {nearest(plain, NAMES) or '/set lists all'}")


def nearest(name: str, names: Iterable[str]) -> str:
    """A question with the name that looks most alike; "" if none does."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{token}={bias:g}" for token, bias in value.items()) or "none"
    return "random" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
