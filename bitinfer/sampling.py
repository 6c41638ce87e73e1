"""From logits to the next token: greedy, or drawn with temperature, top-k, top-p and min-p.

Same logits, parameters and seed give the same token on every machine: exp is the core's own,
every sum is a cumulative one (NumPy's plain sum adds in an order that differs by CPU), equal values
are ordered by token id, and the random numbers are raw Philox bits.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.runtime import exp

Sampler = Callable[[NDArray[np.float32]], int]

_GREEDY_BELOW = 1e-5  # dividing by less would overflow float32 for ordinary logits
_FIRST_GUESS = 256  # candidates sorted first when looking for top_p's nucleus; then 8 x as many


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen; the one place of the defaults.

    With z the logits, T the temperature, tokens in descending order of z (ties: lower id first),
    w_i = exp((z_i - z_max) / T) and all sums in float64 over that order:

    1. T < 1e-5: the first token, and nothing below applies.
    2. top_k > 0: only the first k tokens stay.
    3. top_p < 1: only the shortest run from the front whose w sum up to top_p of all that stayed.
    4. min_p > 0: only tokens with w_i >= min_p (the first has w = 1).
    5. With u uniform in [0, 1): the first token at which the running sum of w exceeds u times
       the sum of all that are left.

    Without top_k, top_p and min_p nothing is sorted: step 5 runs in order of ids. In step 3 the
    sum of all tokens (no top_k) is taken in order of ids too.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a value is out of its range; the message names both.
        """
        _check(self, "temperature", 0.0, 100.0)
        _check(self, "top_p", 0.0, 1.0)
        _check(self, "min_p", 0.0, 1.0)
        for name, most in (("top_k", 2**31 - 1), ("seed", 2**64 - 1)):
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            if not isinstance(value, int | np.integer) or not 0 <= value <= most:
                raise ValueError(f"{name}: expected a whole number from 0 to {most}, got {value!r}")

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> SamplingParams:
        """Defaults of a model: what generation_config.json means in transformers.

        ``do_sample`` false or absent is greedy; otherwise temperature and top_p are 1 and top_k is
        50 where the file does not name them.

        Raises:
            ConfigError: a value is out of range.
        """
        if config.get("do_sample") is not True:
            return cls()
        given = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
        given |= {name: config[name] for name in given if config.get(name) is not None}
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValueError as cause:
            raise ConfigError(f"generation_config.json: {cause}") from None

    def with_options(self, **options: Any) -> SamplingParams:
        """A copy with the options that are not None.

        Raises:
            TypeError: an option has no such name.
            ValueError: an option is out of range.
        """
        known = {field.name for field in fields(self)}
        if unknown := sorted(options.keys() - known):
            raise TypeError(f"unknown sampling option {unknown[0]}: known are {', '.join(known)}")
        return replace(self, **{name: v for name, v in options.items() if v is not None})


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


def _check(params: SamplingParams, name: str, low: float, high: float) -> None:
    value = getattr(params, name)
    if not isinstance(value, int | float | np.number) or not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
