"""Random checkpoints whose activations have the sizes of a trained model's, and texts for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import make_tensors, write_checkpoint


def random_checkpoint(folder: Path, config: dict[str, Any], seed: int) -> Path:
    """A packed checkpoint whose projections turn inputs of unit size into outputs of unit size."""
    tensors, ternary = make_tensors(config, seed)
    multiplies = config["quantization_config"].get("linear_class") == "autobitlinear"
    for name, weights in ternary.items():
        scale = 1 / np.sqrt(np.square(weights, dtype=np.float32).sum(axis=1).mean())
        stored = scale if multiplies else 1 / scale
        tensors[f"{name}.weight_scale"] = np.array([stored], np.float32)
    return write_checkpoint(folder, config, tensors)


def random_text(vocab_size: int, length: int, seed: int) -> list[int]:
    """Token ids drawn uniformly."""
    ids: list[int] = np.random.default_rng(seed).integers(vocab_size, size=length).tolist()
    return ids
