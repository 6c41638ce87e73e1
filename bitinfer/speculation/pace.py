"""``Pace``: how long a draft shall be, from what drafts have cost and how many of them were right.

It never decides which token comes, only how many are run at a time; so its clock changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

LENGTHS = (1, 2, 4, 8)  # tokens of a draft

_GAIN = 1.05  # tokens per time, against those without a draft, from which one is made
_RECENT = 7  # runs of a length, of which the median counts
_FIRST_COSTS = {length: 1 + 0.2 * length for length in LENGTHS}  # steps, until one is measured
_KEEP = 0.9  # weight of the past when a draft was run: the last ten count
_CAUTION = 2  # tokens that the hope counts for
_PATIENCE = 32, 512  # chances passed up until all is tried anew; doubles while that does not pay
_PLAIN_EVERY = 64  # runs of which one is without a draft, to be timed

_FIRST_CREDIT, _MOST_CREDIT = 2.0, 8.0
_EARNED = 0.01  # credit of a step without a draft: the share of the time that trials may lose


class Pace:
    """Chooses the lengths of drafts; serves all generations of a model with drafts of one kind.

    The unit of time is a step: a run of one token. A draft is made where it promises more tokens
    per time than steps do, and only if there is credit for the time that is lost when all of it is
    wrong. What drafts save is earned, what they lose is paid; so all that can be lost is the first
    credit, 1 % of the time, and what one run costs more than was known of it.
    """

    def __init__(self, hopes: Sequence[float]) -> None:
        """Begin; ``hopes`` are the shares of right tokens to expect at first, by outlook."""
        self._shares = [_Share(hope) for hope in hopes]
        self._steps: deque[float] = deque(maxlen=_RECENT)  # seconds
        self._runs = {length: deque[float](maxlen=_RECENT) for length in LENGTHS}  # steps
        self._costs = _FIRST_COSTS
        self._choices: dict[int, list[int]] = {}  # by outlook: lengths that pay, the best first
        self._credit = _FIRST_CREDIT  # steps
        self._since_plain = 0
        self._passed_up = 0
        self._patience, self._most_patience = _PATIENCE

    def length(self, outlook: int, most: int) -> int:
        """How many tokens to draft now, at most ``most``; 0: none."""
        if len(self._steps) < _RECENT or self._since_plain >= _PLAIN_EVERY:
            return 0
        if outlook not in self._choices:
            self._choices[outlook] = self._paying(self._shares[outlook])
        for length in self._choices[outlook]:
            if length <= most and self._costs[length] - 1 <= self._credit:
                return length
        self._passed_up += 1
        if self._passed_up >= self._patience:
            self._begin_anew()
        return 0

    def learn(self, outlook: int, drafted: int, accepted: int) -> None:
        """Take what became of a draft that was run and timed."""
        self._shares[outlook].learn(drafted, accepted)
        self._choices.clear()
        saved = 1 + accepted - self._costs[drafted]
        self._credit = min(self._credit + saved, _MOST_CREDIT)
        if saved > 0:
            self._passed_up = 0
            self._patience, _ = _PATIENCE

    def time(self, drafted: int, seconds: float) -> None:
        """Take how long a run with a draft took, the making of the draft included."""
        if drafted:
            self._since_plain += 1
            self._runs[drafted].append(seconds / _median(self._steps))
            self._costs = {length: self._estimated(length) for length in LENGTHS}
        else:
            self._since_plain = 0
            self._steps.append(seconds)
            self._credit = min(self._credit + _EARNED, _MOST_CREDIT)

    def _paying(self, share: _Share) -> list[int]:
        """Lengths of drafts that promise a gain, the largest gain first."""
        gains = {length: share.tokens(length) / cost for length, cost in self._costs.items()}
        paying = [length for length, gain in gains.items() if gain > _GAIN]
        return sorted(paying, key=gains.__getitem__, reverse=True)

    def _estimated(self, length: int) -> float:
        """Steps that a run with a draft takes: as measured, else in line with the nearest one."""
        measured = [other for other in LENGTHS if self._runs[other]]
        nearest = min(measured, key=lambda other: abs(other - length))
        return 1 + (_median(self._runs[nearest]) - 1) * length / nearest

    def _begin_anew(self) -> None:
        """Forget what was learnt: the text may be another by now, or a time was an outlier."""
        for share in self._shares:
            share.forget()
        for runs in self._runs.values():
            runs.clear()
        self._costs = _FIRST_COSTS
        self._choices.clear()
        self._passed_up = 0
        self._patience = min(2 * self._patience, self._most_patience)


class _Share:
    """Share of drafted tokens that are right, of late."""

    def __init__(self, hope: float) -> None:
        self._hope = hope
        self._right = self._tried = 0.0

    def learn(self, drafted: int, accepted: int) -> None:
        """Take a draft; what stands behind its first wrong token was not tried."""
        self._right = self._right * _KEEP + accepted
        self._tried = self._tried * _KEEP + accepted + (accepted < drafted)

    def forget(self) -> None:
        """Go back to the hope."""
        self._right = self._tried = 0.0

    def tokens(self, length: int) -> float:
        """Tokens that a run with a draft is to yield: 1 + a + a^2 + ... + a^length."""
        share = (self._right + _CAUTION * self._hope) / (self._tried + _CAUTION)
        return 1 + sum(share**n for n in range(1, length + 1))


def _median(values: deque[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
