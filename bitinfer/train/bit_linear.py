"""Linear layers that compute with ternary or binary weights and learn with float masters.

Both multiply integers and scale the sums afterwards. The integers are exact in bfloat16, so under
autocast the product is a bfloat16 matrix product whose sums, accumulated in float32, are exact too
(below 2^24: K up to 131,072); only its results are rounded. Without autocast nothing but the scales
is rounded, as in the engine, and in its order: ``(sums * activation scale) * weight scale``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.train.quantizers import (
    ABSMEAN_THRESHOLD,
    BINARY_LEVELS,
    StraightThrough,
    absmax_codes,
    absmean_codes,
    binary_codes,
    wide,
)


class BitLinear(nn.Linear):
    """BitNet b1.58: absmean ternary weights, absmax int8 activations of each row.

    Takes the place of ``nn.Linear``; ``weight`` holds the masters.

    Args:
        in_features: K.
        out_features: N.
        bias: A float bias is added to the result.
        threshold: Share of mean(|W|) up to which a weight is 0.
        norm: On the input (SubLN); None: there is none.
        kwargs: ``device`` and ``dtype`` of ``nn.Linear``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        threshold: float = ABSMEAN_THRESHOLD,
        norm: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias, **kwargs)
        self.threshold = threshold
        self.norm = norm

    def codes(self) -> tuple[Tensor, Tensor]:
        """Ternary codes (N, K) of the masters and their scale, ()."""
        return absmean_codes(self.weight.detach(), self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        """From x (..., K) to (..., N)."""
        if self.norm is not None:
            x = self.norm(x)
        codes, scale = absmax_codes(x.detach())
        weights, weight_scale = self.codes()
        sums = functional.linear(
            StraightThrough.apply(x, codes, scale),
            StraightThrough.apply(self.weight, weights, weight_scale),
        )
        y = sums * scale * weight_scale
        return (y if self.bias is None else y + self.bias).to(sums.dtype)


class BinaryLinear(nn.Linear):
    """The original BitNet: weights -1 and 1 around their mean, a LayerNorm on the input (SubLN).

    Group by group of columns: the norm, the activations' scale, and the weights' mean and scale.
    Takes the place of ``nn.Linear``; ``weight`` holds the masters.

    Args:
        in_features: K.
        out_features: N.
        bias: A float bias is added to the result.
        num_groups: Groups of columns, a divisor of K.
        eps: Of the norm.
        kwargs: ``device`` and ``dtype`` of ``nn.Linear``.

    Raises:
        ValueError: the groups do not divide K.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        num_groups: int = 1,
        eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        if num_groups < 1 or in_features % num_groups:
            raise ValueError(f"num_groups: expected a divisor of {in_features}, got {num_groups}")
        super().__init__(in_features, out_features, bias, **kwargs)
        self.num_groups = num_groups
        self.eps = eps

    def codes(self) -> tuple[Tensor, Tensor]:
        """Codes (N, K) of the masters and the scale of each group, (groups,)."""
        return binary_codes(self.weight.detach(), self.num_groups)

    def forward(self, x: Tensor) -> Tensor:
        """From x (..., K) to (..., N)."""
        grouped = (self.num_groups, self.in_features // self.num_groups)
        normed = functional.layer_norm(wide(x).unflatten(-1, grouped), grouped[1:], eps=self.eps)
        codes, scale = absmax_codes(normed.detach(), BINARY_LEVELS)
        weights, beta = self.codes()
        sums = torch.einsum(
            "...gk,ngk->...gn",
            StraightThrough.apply(normed, codes.to(x.dtype), scale),
            StraightThrough.apply(
                self.weight.unflatten(-1, grouped), weights.unflatten(-1, grouped), beta[:, None]
            ),
        )
        y = (sums * scale * beta[:, None]).sum(dim=-2)
        return (y if self.bias is None else y + self.bias).to(sums.dtype)
