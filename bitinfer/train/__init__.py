"""Training of ternary models (extra ``train``); the only package here that knows torch."""

from __future__ import annotations

try:
    import torch as _torch
    import transformers as _transformers
except ModuleNotFoundError as cause:
    raise ModuleNotFoundError(
        f"training: expected the library {cause.name}, got none: pip install 'bitinfer[train]'",
        name=cause.name,
    ) from None

from bitinfer.train.bit_linear import BinaryLinear, BitLinear
from bitinfer.train.saving import load, save
from bitinfer.train.ternarize import ternarize

__all__ = ["BinaryLinear", "BitLinear", "load", "save", "ternarize"]
del _torch, _transformers
