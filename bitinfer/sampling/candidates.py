"""Which tokens may be drawn, from the temperature to XTC: the Python face of csrc/ops/sampling.

Everything is native there, for a dozen NumPy calls take longer than a small model's token.
"""

from __future__ import annotations

from bitinfer import _core
from bitinfer.sampling.params import SamplingParams

Candidates = _core.Candidates
argmax = _core.argmax
largest = _core.largest
total = _core.total


def candidates(params: SamplingParams) -> Candidates:
    """The steps from the temperature on with these settings; the temperature is above 0."""
    return Candidates(
        temperature=params.temperature,
        top_k=params.top_k,
        typical_p=params.typical_p,
        top_p=params.top_p,
        min_p=params.min_p,
        xtc_threshold=params.xtc_threshold,
    )
