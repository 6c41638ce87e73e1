"""Which tokens may be drawn, and with what weights: from the temperature to XTC.

Every sum is a cumulative one in float64 over ascending ids, for NumPy's plain sum adds in an order
that differs by CPU; exp is the core's own. So the same logits leave the same tokens everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.runtime import exp
from bitinfer.sampling.params import SamplingParams

_FIRST_GUESS = 256  # candidates sorted first when looking for a nucleus; then 8 x as many

Places = NDArray[np.intp]


def candidates(
    logits: NDArray[np.float32], params: SamplingParams, xtc: bool = False
) -> tuple[Places | None, NDArray[np.float32]]:
    """What the steps from temperature to XTC leave (docs/sampling.md).

    Args:
        logits: ``(vocab_size,)``, the largest of them finite; not modified.
        params: A temperature above 0, and the other settings.
        xtc: Whether XTC acts this time.

    Returns:
        Ids in ascending order, or None for all; and their weights w, float32, unnormalised.
    """
    ids: Places | None = None
    scaled = (logits - np.max(logits)) / np.float32(params.temperature)
    if 0 < params.top_k < len(logits):
        ids = np.sort(largest(logits, params.top_k))
        scaled = scaled[ids]
    weights = exp(scaled)

    def keep(places: Places) -> None:
        nonlocal ids, scaled, weights
        ids = places if ids is None else ids[places]
        scaled, weights = scaled[places], weights[places]

    if params.typical_p < 1.0:
        total = _total(weights)
        surprise = _surprise(scaled, weights, total)
        keep(_shortest_run(-surprise, weights, params.typical_p * total))
    if params.top_p < 1.0:
        keep(_shortest_run(scaled, weights, params.top_p * _total(weights)))
    if params.min_p > 0.0:
        least = params.min_p * float(np.max(weights))
        keep(np.flatnonzero(weights >= np.float32(least)))
    if xtc:
        least = params.xtc_threshold * _total(weights)
        keep(_without_top_choices(scaled, weights >= np.float32(least)))
    return ids, weights


def largest(values: NDArray[np.floating[Any]], count: int) -> Places:
    """Places of the ``count`` largest, in descending order, ties by place; sorts only these."""
    bound = np.partition(values, len(values) - count)[len(values) - count]
    (above,) = np.nonzero(values > bound)
    (equal,) = np.nonzero(values == bound)
    places = np.concatenate([above, equal[: count - len(above)]])
    return places[np.argsort(-values[places], kind="stable")]


def running_sums(weights: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Sums of the first, the first two, ... in float64, added one after the other."""
    return np.cumsum(weights.astype(np.float64, copy=False))  # with dtype= it takes 4 x as long


def _total(weights: NDArray[np.float32]) -> float:
    return float(running_sums(weights)[-1])


def _surprise(
    scaled: NDArray[np.float32], weights: NDArray[np.float32], total: float
) -> NDArray[np.float64]:
    """``|-ln p - H|`` of each token, H the entropy; infinite where p = 0.

    With s the scaled logits and S the sum of w = exp(s): -ln p = ln S - s and H = ln S - mean(s),
    so it is |mean(s) - s|, and no logarithm is needed.
    """
    possible = weights > 0
    exact = np.where(possible, scaled, 0).astype(np.float64)
    mean = running_sums(weights * exact)[-1] / total
    return np.where(possible, np.abs(mean - exact), np.inf)


def _shortest_run(
    values: NDArray[np.floating[Any]], weights: NDArray[np.float32], bound: float
) -> Places:
    """Places of the fewest tokens, largest value first, whose weights sum up to ``bound``.

    Ascending; at least one. Of equal values the first comes first. No more is sorted than needed
    (times 8).
    """
    count = _FIRST_GUESS
    while True:
        count = min(count, len(values))
        places = largest(values, count)
        sums = running_sums(weights[places])
        if sums[-1] >= bound or count == len(values):
            size = int(np.searchsorted(sums, bound, side="left")) + 1
            return np.sort(places[:size])
        count *= 8


def _without_top_choices(scaled: NDArray[np.float32], is_top: NDArray[np.bool_]) -> Places:
    """Places of all but the top choices, of which the least likely (the last of equals) stays."""
    (top,) = np.nonzero(is_top)
    if len(top) > 1:
        least = len(top) - 1 - int(np.argmin(scaled[top][::-1]))
        is_top = is_top.copy()
        is_top[top[least]] = False
        return np.flatnonzero(~is_top)
    return np.arange(len(scaled))
