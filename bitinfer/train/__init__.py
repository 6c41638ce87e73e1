"""Training of ternary models (extra ``train``); the only package here that knows torch.

Config, data, schedule and log do without it: what needs torch is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitinfer.train.config import TrainConfig
from bitinfer.train.distill_config import DistillConfig, LossWeights

if TYPE_CHECKING:
    from bitinfer.train.bit_linear import BinaryLinear, BitLinear
    from bitinfer.train.distillation import distill
    from bitinfer.train.loop import TrainResult, train
    from bitinfer.train.saving import load, save
    from bitinfer.train.ternarizing import ternarize

__all__ = [
    "BinaryLinear",
    "BitLinear",
    "DistillConfig",
    "LossWeights",
    "TrainConfig",
    "TrainResult",
    "distill",
    "load",
    "save",
    "ternarize",
    "train",
]

_LATE = {
    "BinaryLinear": "bit_linear",
    "BitLinear": "bit_linear",
    "TrainResult": "loop",
    "distill": "distillation",
    "load": "saving",
    "save": "saving",
    "ternarize": "ternarizing",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch.

    Raises:
        ModuleNotFoundError: a library of the extra is missing; says how to install it.
    """
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    except ModuleNotFoundError as cause:
        if (cause.name or "").startswith("bitinfer"):
            raise
        raise ModuleNotFoundError(
            f"training: expected the library {cause.name}, got none: pip install 'bitinfer[train]'",
            name=cause.name,
        ) from None
