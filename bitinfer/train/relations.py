"""Relations among the queries, keys and values of a layer, and how far a student's are off.

Relation heads need not be attention heads: the vectors of all heads are joined and split anew, so
that queries and the fewer keys and values of grouped attention, and models of other widths, all
have the same number. Source: MiniLMv2 (arXiv 2012.15828), section 3.1; BitDistill
(arXiv 2510.13998), equations 10 to 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_NEVER = -1e9  # score of a padding token; its weight is 0 in fp32


def projections(model: PreTrainedModel, layer: int) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """The q, k and v projections of a layer of a Llama, Qwen3 or BitNet model; -1 is the last.

    Raises:
        ValueError: there is no such layer.
    """
    layers = model.base_model.layers
    if not -len(layers) <= layer < len(layers):
        raise ValueError(
            f"layer: expected {-len(layers)} to {len(layers) - 1} (the model has {len(layers)}"
            f" layers), got {layer}"
        )
    attention = layers[layer].self_attn
    return attention.q_proj, attention.k_proj, attention.v_proj


def check_relation_heads(heads: int, *models: tuple[nn.Linear, nn.Linear, nn.Linear]) -> None:
    """Refuse a number of relation heads that does not divide all widths.

    Raises:
        ValueError: it does not; names a number that does.
    """
    widths = [projection.out_features for model in models for projection in model]
    if heads < 1 or any(width % heads for width in widths):
        raise ValueError(
            f"relation_heads: expected a divisor of the widths of q, k and v"
            f" ({', '.join(map(str, widths))}), got {heads}: take {math.gcd(*widths)} or one of its"
            " divisors"
        )


class AttentionTap:
    """Keeps what the q, k and v projections of one layer put out in the last forward pass.

    The rows are those of the modules themselves, before RoPE and before norms of single heads.
    """

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        """Listen to a layer from now on; before the model is compiled or made parallel."""
        self._states: dict[int, Tensor] = {}
        for place, projection in enumerate(projections(model, layer)):
            projection.register_forward_hook(self._keeper(place))

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the last pass, ``(B, T, width)`` each; then forget them."""
        states = (self._states[0], self._states[1], self._states[2])
        self._states.clear()
        return states

    def _keeper(self, place: int) -> Any:
        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            self._states[place] = output

        return keep


def relations(states: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """``log softmax(A A^T / sqrt(d))`` of each relation head, where d is its width.

    Args:
        states: ``(B, T, width)`` of any float type; computed in fp32.
        heads: Relation heads; divides the width.
        mask: bool ``(B, T)``, False for padding, to which no token relates; None: there is none.

    Returns:
        fp32 ``(B, heads, T, T)``.
    """
    batch, length, width = states.shape
    with torch.autocast(states.device.type, enabled=False):
        rows = states.float().view(batch, length, heads, width // heads).transpose(1, 2)
        scores = rows @ rows.transpose(-1, -2) / math.sqrt(width // heads)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], _NEVER)
        return scores.log_softmax(-1)


def relation_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], heads: int, mask: Tensor | None = None
) -> Tensor:
    """Mean of ``KL(teacher's relation || student's)`` over Q-Q, K-K and V-V, heads and tokens.

    Args:
        student, teacher: Queries, keys and values, ``(B, T, width)`` each; widths may differ.
        heads: Relation heads; divides every width.
        mask: bool ``(B, T)``, False for padding, which is left out; None: there is none.

    Returns:
        fp32 scalar, 0 where both relate alike.
    """
    total = torch.zeros((), device=student[0].device)
    for ours, theirs in zip(student, teacher, strict=True):
        logs, wanted = (relations(states, heads, mask) for states in (ours, theirs))
        divergence = (wanted.exp() * (wanted - logs)).sum(-1)  # (B, heads, T)
        if mask is None:
            total = total + divergence.mean()
        else:
            total = total + (divergence * mask[:, None]).sum() / (heads * mask.sum().clamp(min=1))
    return total / len(student)
