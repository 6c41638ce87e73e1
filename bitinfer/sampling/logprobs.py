"""Log-probabilities of the model's own distribution, before anything that steers sampling."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

from bitinfer.runtime import exp
from bitinfer.sampling.candidates import largest, total

_LN = Context(prec=25).ln  # correctly rounded; math.log differs by platform in the last bit


@dataclass(frozen=True)
class TokenLogprob:
    """How likely the model found a token, and which it found likeliest.

    Attributes:
        token_id: The token that was chosen.
        logprob: Natural logarithm of its probability, at temperature 1 and with no other setting.
        top: (token id, logprob) of the likeliest tokens, likeliest first, ties by id.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Logprobs:
    """All log-probabilities of one step: ``z - z_max - ln(sum of exp(z - z_max))``."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        """Take the logits, ``(vocab_size,)``, the largest finite; they may change afterwards."""
        self._shifted = logits - np.max(logits)
        self._log_total = float(_LN(Decimal(total(exp(self._shifted)))))

    def of(self, token_id: int, num_top: int) -> TokenLogprob:
        """The record of a chosen token, with the ``num_top`` likeliest."""
        count = min(num_top, len(self._shifted))
        top = largest(self._shifted, count).tolist() if count else []
        return TokenLogprob(token_id, self._one(token_id), tuple((i, self._one(i)) for i in top))

    def _one(self, token_id: int) -> float:
        return float(self._shifted[token_id]) - self._log_total
