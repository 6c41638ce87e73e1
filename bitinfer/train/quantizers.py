"""Floats as small integers with scales, by the formulas that the engine and transformers follow.

Each function returns ``(codes, scale)`` with ``codes * scale`` near to what was given. Codes have
the dtype of the input, which holds them exactly even if it is bfloat16; scales are float32, or
float64 of float64 input, in which all is then computed. Nothing here has a gradient of its own:
``StraightThrough`` stands in for it.

Sources: arXiv 2402.17764 and transformers, src/transformers/integrations/bitnet.py (ternary);
arXiv 2310.11453 (binary).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-5  # no scale is made of a smaller mean or maximum
ABSMEAN_THRESHOLD = 0.5  # shares of mean(|W|) above which a weight is not 0: where rounding is up
TERNARY_LEVELS = 127  # codes of an activation's largest magnitude
BINARY_LEVELS = 128


class StraightThrough(torch.autograd.Function):
    """Codes of a value, as if ``codes * scale`` were the value itself.

    Forward returns the codes; backward divides their gradient by the scale, so that the gradient of
    ``codes * scale`` comes through unchanged, clipped and rounded values included.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        """Codes of ``value``, which broadcasts with ``scale``; all of one shape but the scale."""
        ctx.save_for_backward(scale)
        ctx.dtype = value.dtype
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the value."""
        (scale,) = ctx.saved_tensors
        return (gradient / scale).to(ctx.dtype), None, None


def absmean_codes(weight: Tensor, threshold: float = ABSMEAN_THRESHOLD) -> tuple[Tensor, Tensor]:
    """Ternary codes of a matrix and the mean of its magnitudes.

    ``r = 1 / max(mean(|W|), 1e-5)``; codes are the signs where ``|W * r| > threshold`` and 0
    elsewhere: with 0.5 that is ``clamp(round(W * r), -1, 1)``, ties to even. The mean is taken in
    float64.

    Args:
        weight: Masters, (N, K).
        threshold: Share of the mean up to which a weight is 0.

    Returns:
        Codes (N, K) of -1, 0, 1, and the scale ``1 / r``, ().
    """
    w = wide(weight)
    r = 1 / w.abs().mean(dtype=torch.float64).to(w.dtype).clamp(min=SMALLEST)
    x = w * r
    codes = torch.where(x.abs() > threshold, x.sign(), torch.zeros_like(x))
    return codes.to(weight.dtype), 1 / r


def absmax_codes(x: Tensor, levels: int = TERNARY_LEVELS) -> tuple[Tensor, Tensor]:
    """Int8 codes of each row of activations.

    ``m = max(|row|, 1e-5)``; codes ``clamp(round(x * (levels / m)), -128, 127)``, ties to even.

    Args:
        x: (..., K).
        levels: Code of the largest magnitude, ``TERNARY_LEVELS`` or ``BINARY_LEVELS``.

    Returns:
        Codes (..., K), and scales ``m / levels``, (..., 1).
    """
    rows = wide(x)
    m = rows.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)
    codes = (rows * (levels / m)).round().clamp(-128, 127)
    return codes.to(x.dtype), m / levels


def binary_codes(weight: Tensor, num_groups: int = 1) -> tuple[Tensor, Tensor]:
    """Codes of the original BitNet, group of columns by group of columns.

    ``alpha = mean(W)``, ``beta = mean(|W|)``, both taken in float64; codes are 1 where
    ``W > alpha`` and -1 elsewhere.

    Args:
        weight: Masters, (N, K).
        num_groups: Groups of columns, a divisor of K.

    Returns:
        Codes (N, K) of -1 and 1, and beta, (groups,).
    """
    w = wide(weight).unflatten(-1, (num_groups, -1))
    alpha = w.mean(dim=(0, 2), keepdim=True, dtype=torch.float64).to(w.dtype)
    beta = w.abs().mean(dim=(0, 2), dtype=torch.float64).to(w.dtype)
    codes = torch.where(w > alpha, 1.0, -1.0).to(weight.dtype)
    smallest = torch.finfo(beta.dtype).tiny  # StraightThrough divides by it
    return codes.flatten(-2), beta.clamp(min=smallest)


def wide(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is in float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
