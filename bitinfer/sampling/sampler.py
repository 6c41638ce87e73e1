"""From logits to the next token: greedy, or drawn with temperature, top-k, top-p and min-p.

Same logits, parameters and seed give the same token on every machine: exp is the core's own,
every sum is a cumulative one (NumPy's plain sum adds in an order that differs by CPU), equal values
are ordered by token id, and the random numbers are raw Philox bits.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.runtime import exp
from bitinfer.sampling.params import SamplingParams

Sampler = Callable[[NDArray[np.float32]], int]

_GREEDY_BELOW = 1e-5  # dividing by less would overflow float32 for ordinary logits
_FIRST_GUESS = 256  # candidates sorted first when looking for top_p's nucleus; then 8 x as many


def make_sampler(params: SamplingParams) -> Sampler:
    """A function from logits, float32 ``(vocab_size,)``, not modified, to a token id.

    It holds the random numbers' state: one sampler per generation, not shared between threads.
    The sampler raises CheckpointError if the logits hold no largest number (NaN, or infinities).
    """
    if params.temperature < _GREEDY_BELOW:
        return greedy
    seed = secrets.randbits(64) if params.seed is None else int(params.seed)
    random = np.random.Philox(key=seed)

    def sample(logits: NDArray[np.float32]) -> int:
        uniform = (int(random.random_raw()) >> 11) * 2.0**-53
        ids, weights = candidates(logits, params)
        sums = np.cumsum(weights, dtype=np.float64)
        place = int(np.searchsorted(sums, uniform * sums[-1], side="right"))
        place = min(place, int(np.searchsorted(sums, sums[-1])))  # if the product rounded up
        return int(place if ids is None else ids[place])

    return sample


def greedy(logits: NDArray[np.float32]) -> int:
    """The token with the largest logit; the lowest id among equals."""
    token_id = int(np.argmax(logits))
    _check_largest(logits[token_id])
    return token_id


def candidates(
    logits: NDArray[np.float32], params: SamplingParams
) -> tuple[NDArray[np.intp] | None, NDArray[np.float32]]:
    """What steps 2 to 4 of `SamplingParams` leave.

    Returns:
        Ids in descending order of logit, or None for all in order of ids; and their weights
        w, float32, unnormalised.
    """
    largest = np.max(logits)
    _check_largest(largest)
    top_k = 0 if params.top_k >= len(logits) else params.top_k
    ids: NDArray[np.intp] | None = None
    if top_k:
        ids = _top(logits, top_k)
        logits = logits[ids]
    weights = exp((logits - largest) / np.float32(params.temperature))
    if ids is None and params.top_p < 1.0:
        ids = _nucleus(logits, weights, params.top_p)
        return _cut(ids, weights[ids], params.min_p)
    if ids is None and params.min_p > 0.0:
        (kept,) = np.nonzero(weights >= params.min_p)
        ids = kept[np.argsort(-logits[kept], kind="stable")]
        return ids, weights[ids]
    if ids is None:
        return None, weights
    if params.top_p < 1.0:
        sums = np.cumsum(weights, dtype=np.float64)
        count = _nucleus_size(sums, params.top_p * sums[-1])
        ids, weights = ids[:count], weights[:count]
    return _cut(ids, weights, params.min_p)


def _cut(
    ids: NDArray[np.intp], weights: NDArray[np.float32], min_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The leading tokens with a weight of at least ``min_p``; weights descend."""
    count = int(np.count_nonzero(weights >= min_p))
    return ids[:count], weights[:count]


def _top(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Ids of the k largest, in descending order, ties by id, without sorting the rest."""
    bound = np.partition(logits, len(logits) - k)[len(logits) - k]  # the k-th largest value
    (above,) = np.nonzero(logits > bound)
    (equal,) = np.nonzero(logits == bound)
    ids = np.concatenate([above, equal[: k - len(above)]])
    return ids[np.argsort(-logits[ids], kind="stable")]


def _nucleus(
    logits: NDArray[np.float32], weights: NDArray[np.float32], top_p: float
) -> NDArray[np.intp]:
    """Ids of top_p's nucleus among all tokens, sorting no more than it needs (times 8)."""
    bound = top_p * float(np.cumsum(weights, dtype=np.float64)[-1])
    size = _FIRST_GUESS
    while size < len(logits):
        ids = _top(logits, size)
        sums = np.cumsum(weights[ids], dtype=np.float64)
        if sums[-1] >= bound:
            return ids[: _nucleus_size(sums, bound)]
        size *= 8
    ids = np.argsort(-logits, kind="stable")
    return ids[: _nucleus_size(np.cumsum(weights[ids], dtype=np.float64), bound)]


def _nucleus_size(sums: NDArray[np.float64], bound: float) -> int:
    """Length of the shortest run whose sum reaches ``bound``: at least 1, at most all."""
    return min(int(np.searchsorted(sums, bound, side="left")) + 1, len(sums))


def _check_largest(largest: np.float32) -> None:
    if not math.isfinite(largest):
        raise CheckpointError(
            f"logits: expected a finite largest value, got {largest}: the weights overflow "
            "with this prompt; check the checkpoint"
        )
