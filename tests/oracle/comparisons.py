"""How far results are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FLIPPED = 1e-3  # logits of random models: rounding gives 1e-5, a flip 0.1


def distances(logits: NDArray[Any], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest absolute difference at each position, ``(T,)``."""
    assert exact.dtype == np.float64
    result: NDArray[np.float64] = np.abs(logits - exact).max(axis=1)
    return result


def assert_like_fp32(ours: list[NDArray[np.float64]], theirs: list[NDArray[np.float64]]) -> None:
    """Distances to fp64, ours and those of torch's fp32: alike in the middle and in the tail.

    A flipped code moves all later positions of its text, so distances are either of the size of
    rounding or of the size of a flip; beside the median, the share of the latter is compared.
    """
    a, b = np.concatenate(ours), np.concatenate(theirs)
    assert np.median(a) <= 3 * np.median(b)
    assert np.mean(a > FLIPPED) <= 2 * np.mean(b > FLIPPED) + 0.1


def assert_argmax_like_fp32(
    ours: list[NDArray[Any]], theirs: list[NDArray[Any]], exact: list[NDArray[np.float64]]
) -> None:
    """The likeliest token is fp64's as often as it is in torch's fp32, within 1 % of positions."""
    a, b, best = (
        np.concatenate([rows.argmax(1) for rows in part]) for part in (ours, theirs, exact)
    )
    assert len(best) >= 500
    assert np.mean(a == best) >= np.mean(b == best) - 0.01


def assert_close_rows(ours: NDArray[Any], theirs: NDArray[Any], name: str) -> None:
    """Rows differ by at most 1e-5 of the row's largest value: rounding in another order."""
    error = np.abs(ours - theirs).max(axis=-1)
    assert (error <= 1e-5 * np.abs(theirs).max(axis=-1)).all(), (name, error.max())
