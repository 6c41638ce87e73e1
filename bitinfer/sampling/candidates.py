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

_BLOCK = 8192  # values that are summed at a time
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
        share = params.typical_p * total(weights)
        keep(_shortest_run(-_surprise(scaled, weights), weights, share))
    if params.top_p < 1.0:
        keep(_shortest_run(scaled, weights, params.top_p * total(weights)))
    if params.min_p > 0.0:
        least = params.min_p * float(np.max(weights))
        keep(np.flatnonzero(weights >= np.float32(least)))
    if xtc:
        least = params.xtc_threshold * total(weights)
        keep(_without_top_choices(scaled, weights >= np.float32(least)))
    return ids, weights


def largest(values: NDArray[np.floating[Any]], count: int) -> Places:
    """Places of the ``count`` largest, in descending order, ties by place; sorts only these."""
    bound = np.partition(values, len(values) - count)[len(values) - count]
    (above,) = np.nonzero(values > bound)
    (equal,) = np.nonzero(values == bound)
    places = np.concatenate([above, equal[: count - len(above)]])
    return places[np.argsort(-values[places], kind="stable")]


def draw(weights: NDArray[np.float32], uniform: float) -> int:
    """Place of the first weight at which the running sum exceeds ``uniform`` of the whole sum."""
    sums = _block_sums(weights)
    bound = min(uniform * sums[-1], np.nextafter(sums[-1], 0.0))  # if the product rounded up
    block = int(np.searchsorted(sums, bound, side="right"))
    start = sums[block - 1] if block else np.float64(0)
    inner = _running_sums(weights[block * _BLOCK :][:_BLOCK], start)
    return block * _BLOCK + int(np.searchsorted(inner, bound, side="right"))


def total(values: NDArray[np.floating[Any]]) -> float:
    """The sum in float64, added one after the other."""
    return float(_block_sums(values)[-1])


def _block_sums(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The running sums of all values at the end of each block: no more than that is kept.

    (Arrays as long as a vocabulary come as fresh pages from the system each time, which takes
    longer than to add them up.)
    """
    sums = np.empty(-(-len(values) // _BLOCK))
    last = np.float64(0)
    for block in range(len(sums)):
        last = _running_sums(values[block * _BLOCK :][:_BLOCK], last)[-1]
        sums[block] = last
    return sums


def _running_sums(values: NDArray[np.floating[Any]], start: np.float64) -> NDArray[np.float64]:
    """``start`` plus the first value, plus the second, ... in float64, one after the other."""
    terms = values.astype(np.float64)
    terms[0] += start
    return np.cumsum(terms)


def _surprise(scaled: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """``|-ln p - H|`` of each token, H the entropy; infinite where p = 0.

    With s the scaled logits and S the sum of w = exp(s): -ln p = ln S - s and H = ln S - mean(s),
    so it is |mean(s) - s|, and no logarithm is needed.
    """
    exact = scaled.astype(np.float64)
    exact[weights == 0] = -np.inf
    terms = np.multiply(weights, exact, out=np.zeros_like(exact), where=weights > 0)
    mean = total(terms) / total(weights)
    return np.abs(np.subtract(mean, exact, out=exact), out=exact)


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
        sums = _running_sums(weights[places], np.float64(0))
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
