"""The loss of each token of a text, the same on every instruction set; perplexity is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core, runtime


def token_losses(
    logits: NDArray[np.float32], targets: Sequence[int] | NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """``-log p`` of each target: ``ln(sum of exp(z - z_max)) - (z[target] - z_max)``.

    Args:
        logits: Rows ``(T, vocab_size)``, the largest of each finite; not modified.
        targets: The token that came after each row, ``(T,)``.

    Returns:
        Nats, float64 ``(T,)``.
    """
    losses = np.empty(len(targets))
    for i, (row, target) in enumerate(zip(logits, targets, strict=True)):
        shifted = row - row.max()
        losses[i] = math.log(_core.total(runtime.exp(shifted))) - float(shifted[target])
    return losses
