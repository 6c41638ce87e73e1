"""What lowers the logits of tokens that occurred: repetition, presence, frequency, and DRY.

Only the logits of tokens that were seen are touched, so the vocabulary's size costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from bitinfer.runtime import pow_f64
from bitinfer.sampling.params import DRY_LONGEST, SamplingParams

DRY_BREAKERS = ("\n", ":", '"', "*")  # those of the author and of llama.cpp
_MOST_PENALTY = 1e30  # keeps float32 finite


def dry_breaks(
    decode: Callable[[Sequence[int]], str], control_ids: Collection[int]
) -> Callable[[int], bool]:
    """Tells the tokens that no sequence of DRY crosses: control tokens, and ``DRY_BREAKERS``."""

    @functools.cache
    def breaks(token_id: int) -> bool:
        return token_id in control_ids or any(b in decode([token_id]) for b in DRY_BREAKERS)

    return breaks


class TokenHistory:
    """Ids of the prompt and of the reply so far, in one growing array."""

    def __init__(self, prompt_ids: NDArray[np.int32]) -> None:
        self.num_prompt = self._length = len(prompt_ids)
        self._buffer = prompt_ids.copy()

    def append(self, token_id: int) -> None:
        """Add a token of the reply."""
        if self._length == len(self._buffer):
            self._buffer = np.resize(self._buffer, 2 * self._length + 64)
        self._buffer[self._length] = token_id
        self._length += 1

    @property
    def ids(self) -> NDArray[np.int32]:
        """All ids, ``(T,)``, read-only; valid until the next ``append``."""
        ids = self._buffer[: self._length]
        ids.flags.writeable = False
        return ids


def penalize_occurrences(
    logits: NDArray[np.float32], params: SamplingParams, history: TokenHistory
) -> None:
    """Apply the repetition, presence and frequency penalties to ``logits`` in place."""
    start = max(0, len(history.ids) - params.repetition_window) if params.repetition_window else 0
    if params.repetition_penalty != 1.0:
        seen = history.ids[start:]  # an id that stands here twice gets the same value twice
        penalty = np.float32(params.repetition_penalty)
        z = logits[seen]
        logits[seen] = np.where(z < 0, z * penalty, z / penalty)
    if params.presence_penalty or params.frequency_penalty:
        reply = history.ids[max(start, history.num_prompt) :]
        said, counts = np.unique(reply, return_counts=True)
        frequency = counts.astype(np.float32) * np.float32(params.frequency_penalty)
        logits[said] -= frequency + np.float32(params.presence_penalty)


class Dry:
    """The penalty on continuing a sequence that stands earlier in the text already.

    For each place j of the text it keeps how many tokens up to j equal the last ones; a new token
    lengthens each of these runs by one or ends it, so a step costs one pass over the text.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: NDArray[np.int32],
        breaks: Callable[[int], bool],
    ) -> None:
        """Start after ``prompt_ids``; ``breaks`` tells the tokens that no sequence crosses."""
        self._params = params
        self._breaks = breaks
        matters = range(len(prompt_ids) - 1, max(-1, len(prompt_ids) - 1 - DRY_LONGEST), -1)
        start = next((at for at in matters if breaks(int(prompt_ids[at]))), matters.stop)
        self._runs = np.zeros(start + 1, np.int32)  # (T,); the last is 0: no repeat of itself
        for length in range(len(self._runs) + 1, len(prompt_ids) + 1):
            self.add(prompt_ids[:length])

    def add(self, ids: NDArray[np.int32]) -> None:
        """Take the last of ``ids``, the whole text ``(T,)``, of which all others are known."""
        last = ids[-1]
        runs = np.zeros(len(ids), np.int32)
        if len(ids) > 1 and not self._breaks(int(last)):
            np.add(self._runs[:-1], 1, out=runs[1:-1], where=ids[1:-1] == last)
            runs[0] = ids[0] == last
        self._runs = runs

    def penalize(self, logits: NDArray[np.float32], ids: NDArray[np.int32]) -> None:
        """Subtract the penalties of the tokens that may follow ``ids`` from ``logits`` in place."""
        params = self._params
        start = max(0, len(ids) - params.dry_window) if params.dry_window else 0
        runs = self._runs[start:-1]
        runs = np.minimum(runs, np.arange(1, len(runs) + 1))  # a run lies in the window
        places = np.flatnonzero(runs >= params.dry_allowed_length)
        places = places[np.argsort(runs[places], kind="stable")]  # so that the longest is kept
        pairs = zip(ids[start + places + 1].tolist(), runs[places].tolist(), strict=True)
        longest = {token_id: run for token_id, run in pairs if not self._breaks(token_id)}
        lengths = np.minimum(np.array([*longest.values()], np.float64), DRY_LONGEST)
        growth = pow_f64(params.dry_base, lengths - params.dry_allowed_length)
        penalty = np.minimum(params.dry_multiplier * growth, _MOST_PENALTY)
        logits[np.array([*longest], np.intp)] -= penalty.astype(np.float32)
