"""``PromptLookup``: drafts by what followed the last tokens where they stood before.

The idea is prompt lookup decoding (github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections.abc import Sequence

_SIZES = (4, 2)  # n-grams that are looked up, the longest first
_LONGEST = 8  # tokens up to which the length of a match is told apart


class PromptLookup:
    """Finds earlier places of the last tokens in the prompt and the reply.

    A dictionary has the latest place of each n-gram, so that a token costs the same however long
    the text is. A place is followed as long as the text goes on as it did there: a longer match
    than any n-gram, at no cost.

    Attributes:
        hopes: Share of drafted tokens that are right, by what `outlook` says; measured
            (benchmarks/speculation.py) where nothing is known of a text yet.
    """

    hopes = (0.3, 0.45, 0.6, 0.8)

    def __init__(self, prompt_ids: Sequence[int]) -> None:
        """Begin after a prompt."""
        self._ids = ids = list(prompt_ids)
        self._at = 0  # ids[at] may come next; 0: nothing is known
        self._matched = 0  # tokens before `at` that equal the last ones
        self._place: dict[tuple[int, ...], int] = {}  # n-gram -> place after its latest occurrence
        for size in _SIZES:  # all but the last, which is what is looked up
            ngrams = zip(*(ids[n:] for n in range(size)), strict=False)
            self._place.update(zip(ngrams, range(size, len(ids)), strict=False))

    def extend(self, token_ids: Sequence[int]) -> None:
        """Take tokens of the reply."""
        ids = self._ids
        for token_id in token_ids:
            for size in _SIZES:
                self._place[tuple(ids[-size:])] = len(ids)
            if self._at and ids[self._at] == token_id:
                self._at += 1
                self._matched += 1
            else:
                self._at = 0
            ids.append(token_id)

    def outlook(self) -> int | None:
        """How sure a draft would be, an index of ``hopes``; None: there is nothing to draft."""
        if not self._at and not self._find():
            return None
        matched = self._matched
        return 0 if matched < 3 else 1 if matched < 5 else 2 if matched < _LONGEST else 3

    def draft(self, count: int) -> list[int]:
        """The next ``count`` tokens if the text goes on as it did; a short period is repeated."""
        return (self._ids[self._at : self._at + count] * count)[:count]

    def close(self) -> None:
        """Nothing is held."""

    def _find(self) -> bool:
        """Find the last tokens elsewhere."""
        ids = self._ids
        for size in _SIZES:
            if at := self._place.get(tuple(ids[-size:]), 0):
                longest = min(at, _LONGEST)
                same = (n for n in range(longest) if ids[at - 1 - n] != ids[-1 - n])
                self._at, self._matched = at, next(same, longest)
                return True
        return False
