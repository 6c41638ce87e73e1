"""``Speculator``: the drafts of one generation, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from bitinfer.speculation.pace import Pace


class DraftSource(Protocol):
    """What guesses the next tokens of one generation."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """Take tokens of the reply, the next after all that are known."""

    def outlook(self) -> int | None:
        """How sure a draft would be, as ``Pace`` counts it; None: there can be none now."""

    def draft(self, count: int) -> list[int]:
        """The next ``count`` tokens; called only after `outlook` found that there are some."""

    def close(self) -> None:
        """Give back what is held."""


class Speculator:
    """Proposes drafts to the generation loop; one per generation, not shared between threads.

    The loop calls in turn ``propose``, ``ran`` once the model has run, then ``propose`` with the
    tokens that were chosen; at the end ``close``.

    Attributes:
        drafted: Tokens that were proposed so far.
        accepted: How many of them were chosen.
    """

    def __init__(
        self, source: DraftSource, pace: Pace, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Take drafts of ``source``, as long as ``pace`` says; ``clock`` tells seconds."""
        self.drafted = self.accepted = 0
        self._source = source
        self._pace = pace
        self._clock = clock
        self._outlook: int | None = None
        self._draft: list[int] = []
        self._began: float | None = None

    def propose(self, chosen: Sequence[int], most: int) -> list[int]:
        """A draft of what follows; mostly empty.

        Args:
            chosen: Tokens of the last run: those of the draft that were right, and one more.
            most: Tokens that there is room for.
        """
        if self._draft:
            self._pace.learn(self._outlook or 0, len(self._draft), self._take(chosen))
        else:
            self._source.extend(chosen)
        self._outlook = self._source.outlook() if most > 0 else None
        self._began = self._clock()
        count = 0 if self._outlook is None else self._pace.length(self._outlook, most)
        self._draft = self._source.draft(count) if count else []
        return self._draft

    def ran(self) -> None:
        """Note that the model has run the last token and the draft."""
        if self._began is not None:
            self._pace.time(len(self._draft), self._clock() - self._began)

    def close(self, chosen: Sequence[int]) -> None:
        """End the generation, perhaps amid the tokens of a draft."""
        self._take(chosen)
        self._source.close()

    def _take(self, chosen: Sequence[int]) -> int:
        """Pass tokens on; return how many of them the draft had right."""
        right = sum(a == b for a, b in zip(chosen, self._draft, strict=False))
        self.drafted += len(self._draft)
        self.accepted += right
        self._source.extend(chosen)
        self._draft = []
        return right
