"""The original binary BitNet (arXiv 2310.11453): weights of one bit from masters.

For each matrix, or each of G groups of its columns: alpha = mean(W), beta = mean(|W|), weights +1
where W > alpha and -1 elsewhere. A projection computes, group by group::

    LN = (x - mean(x)) / sqrt(var(x) + eps)        gamma = max(|LN|)
    y  = sum over groups of (W~ . Quant(LN)) * beta * gamma / 128
    Quant = clip(round(LN * 128 / gamma), -128, 127)

No checkpoint of it is published, so its form is ours: plain Llama or Qwen3 names, the masters as
floats, and in config.json::

    "quantization_config": {"quant_method": "bitnet", "linear_class": "binary",
                            "num_groups": 1, "layer_norm_eps": 1e-5}
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LINEAR_CLASS = "binary"
LEVELS = 128
DEFAULT_NORM_EPS = 1e-5


def traits(num_groups: int, norm_eps: float) -> dict[str, Any]:
    """What differs from the defaults of the spec."""
    found: dict[str, Any] = {
        "projection_norm": "layer_norm",
        "projection_norm_eps": norm_eps,
        "activation_levels": LEVELS,
    }
    if num_groups > 1:
        found |= {"scale_group_count": num_groups, "activation_groups": True}
    return found


def binarize(
    masters: NDArray[np.float32], num_groups: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes and scales of a matrix; means are taken in float64.

    Args:
        masters: float32 (N, K); K a multiple of ``num_groups``.
        num_groups: Groups of columns.

    Returns:
        int8 (N, K) of -1 and 1, and float32 (groups,): beta of each.

    Raises:
        ValueError: a master is no number.
    """
    if not np.isfinite(masters).all():
        row, column = np.argwhere(~np.isfinite(masters))[0]
        got = masters[row, column]
        raise ValueError(f"row {row}, column {column}: expected a finite number, got {got}")
    n, k = masters.shape
    grouped = masters.reshape(n, num_groups, k // num_groups)
    alpha = grouped.mean(axis=(0, 2), dtype=np.float64).astype(np.float32)
    beta = np.abs(grouped).mean(axis=(0, 2), dtype=np.float64).astype(np.float32)
    codes = np.where(grouped > alpha[None, :, None], np.int8(1), np.int8(-1))
    return codes.reshape(n, k), beta
