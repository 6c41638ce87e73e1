"""Turn a model of transformers into one whose projections are ternary or binary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from bitinfer.families.names import SUB_NORMS
from bitinfer.train.bit_linear import BinaryLinear, BitLinear
from bitinfer.train.quantizers import ABSMEAN_THRESHOLD

LINEARS = ("bitnet", "binary")
MODEL_TYPES = ("bitnet", "llama", "qwen3")


def ternarize(
    model: PreTrainedModel,
    linear: str = "bitnet",
    *,
    sub_norm: bool = True,
    num_groups: int = 1,
    threshold: float = ABSMEAN_THRESHOLD,
) -> PreTrainedModel:
    """Replace the projections of each layer, in place; their weights become the masters.

    Args:
        model: A Llama, Qwen3 or BitNet model of transformers, in float32, with any head.
        linear: ``bitnet``: ``BitLinear``; ``binary``: ``BinaryLinear``.
        sub_norm: Put a norm before ``o_proj`` and ``down_proj`` (SubLN), where the model has none.
            A ``BinaryLinear`` always has its own, a BitNet model its two.
        num_groups: Groups of columns, of ``binary``.
        threshold: Share of mean(|W|) up to which a weight is 0, of ``bitnet``.

    Returns:
        ``model``.

    Raises:
        ValueError: the model is of another kind, not in float32 or ternary already, or an argument
            does not go with it.
    """
    _check(model, linear, sub_norm, num_groups, threshold)
    for layer in model.base_model.layers:
        for name, module in list(layer.named_modules()):
            if not isinstance(module, nn.Linear):
                continue
            if linear == "binary":
                new = _in_place_of(module, partial(BinaryLinear, num_groups=num_groups))
            else:
                new = _in_place_of(module, partial(BitLinear, threshold=threshold))
                if sub_norm and model.config.model_type != "bitnet" and name in SUB_NORMS:
                    norm = type(layer.input_layernorm)
                    eps = model.config.rms_norm_eps
                    new.norm = norm(module.in_features, eps=eps).to(module.weight.device)
            layer.set_submodule(name, new)
    return model


def _in_place_of(linear: nn.Linear, kind: Callable[..., nn.Linear]) -> nn.Linear:
    """A layer of ``kind`` that holds the parameters of ``linear``."""
    new = kind(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    new.weight, new.bias = linear.weight, linear.bias
    return new.train(linear.training)


def _check(
    model: PreTrainedModel, linear: str, sub_norm: bool, num_groups: int, threshold: float
) -> None:
    """Refuse what ``ternarize`` does not do, before anything is replaced."""
    if linear not in LINEARS:
        raise ValueError(f"linear: expected {' or '.join(LINEARS)}, got {linear!r}")
    if linear == "binary" and threshold != ABSMEAN_THRESHOLD:
        raise ValueError(f"threshold: expected none of binary weights, got {threshold}")
    if linear == "bitnet" and num_groups != 1:
        raise ValueError(f"num_groups: expected 1 of ternary weights, got {num_groups}")
    kind = getattr(model.config, "model_type", type(model).__name__)
    if kind not in MODEL_TYPES:
        raise ValueError(f"model: expected one of {', '.join(MODEL_TYPES)}, got {kind}")
    if not sub_norm and (linear == "binary" or kind == "bitnet"):
        raise ValueError(f"sub_norm: expected true, a {linear} model of {kind} has its norms")
    if getattr(model.config, "mlp_bias", False):
        raise ValueError("model: expected projections without mlp_bias, which no engine here runs")
    for name, module in model.base_model.layers.named_modules():
        if isinstance(module, BitLinear | BinaryLinear):
            raise ValueError(f"model: expected full-precision projections, got {name} of bits")
        if isinstance(module, nn.Linear) and module.in_features % num_groups:
            raise ValueError(
                f"num_groups: expected a divisor of {module.in_features} ({name}), got {num_groups}"
            )
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"{name}: expected float32, in which small steps are not lost, got"
                f" {parameter.dtype}: load the model with dtype=torch.float32"
            )
