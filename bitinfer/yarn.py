"""YaRN (arXiv 2309.00071): RoPE for longer texts than a model was first trained on.

Slow angles are divided by ``factor``, fast ones kept, with a ramp between them; cosines and sines
are multiplied by ``attention_factor``. Order and roundings are those of transformers,
src/transformers/modeling_rope_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def default_attention_factor(factor: float) -> float:
    """``attention_factor`` where the config names none."""
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def yarn_inv_freq(powers: F32, head_dim: int, theta: float, scaling: Mapping[str, Any]) -> F32:
    """Angle per position, float32 ``(head_dim / 2)``.

    Args:
        powers: ``theta^(2 i / head_dim)``.
        head_dim: Width of a head.
        theta: RoPE's base.
        scaling: ``factor``, ``original_max_position_embeddings``, ``beta_fast``, ``beta_slow``.
    """
    f32 = np.float32
    trained = scaling["original_max_position_embeddings"]

    def turning(rotations: float) -> float:
        """The pair that turns so often in the trained length."""
        return head_dim * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(turning(scaling["beta_fast"])), 0)
    high: float = min(math.ceil(turning(scaling["beta_slow"])), head_dim - 1)
    high = high + 0.001 if low == high else high
    ramp = np.clip((np.arange(head_dim // 2, dtype=f32) - f32(low)) / f32(high - low), 0, 1)
    kept = f32(1.0) - ramp
    slow: F32 = f32(1.0) / (f32(scaling["factor"]) * powers)
    fast: F32 = f32(1.0) / powers
    table: F32 = slow * (f32(1.0) - kept) + fast * kept
    return table
