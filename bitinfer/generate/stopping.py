"""When a reply ends: limits, end tokens, and stop strings in a text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StopRules:
    """When a generation ends, besides the end of the context."""

    max_tokens: int
    eos_token_ids: frozenset[int] = field(default_factory=frozenset)
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: ``max_tokens`` is below 1 or a stop string is empty.
        """
        whole = isinstance(self.max_tokens, int) and not isinstance(self.max_tokens, bool)
        if not whole or self.max_tokens < 1:
            raise ValueError(
                f"max_tokens: expected a whole number from 1 up, got {self.max_tokens!r}"
            )
        for text in self.stops:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop: expected texts that are not empty, got {text!r}")


class StopStrings:
    """Finds stop strings in a text that comes in pieces, giving out only what is none of them.

    Of several, the one that is complete first counts, so the pieces' borders change nothing.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """Take a piece; return the text that is certain, and whether a stop string is complete."""
        if not self._stops:
            return piece, False
        text = self._held + piece
        ends = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        held = next((n for n in range(self._longest(text), 0, -1) if self._begins(text[-n:])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def finish(self) -> str:
        """Return what was held back for a stop string that never came."""
        held, self._held = self._held, ""
        return held

    def _longest(self, text: str) -> int:
        return min(len(text), max((len(s) - 1 for s in self._stops), default=0))

    def _begins(self, tail: str) -> bool:
        return any(s.startswith(tail) for s in self._stops)
