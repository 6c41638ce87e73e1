"""A model whose FFN has a chosen share of idle neurons, to measure what skipping them saves.

A bias of ``gate_proj`` closes the gates of all neurons but some, and a zero in ``ffn_sub_norm`` the
activations of more of them. They are the same for every token; memory is read as if they were not,
since no cache holds a layer until the next token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.engine import Engine
from bitinfer.formats.packed import Tensor
from bitinfer.loading import load_folder

_CLOSED, _OPEN = -1e4, 1e4  # more than a product of gate_proj comes to


def idle_engine(folder: Path, gate: float, down: float, *, head: str, ffn: str) -> Engine:
    """A packed model with squared ReLU and an FFN sub-norm, in huge pages.

    Args:
        folder: The model; its file stays as it is.
        gate: Share of neurons whose gate is open.
        down: Share of neurons whose activation is not 0, among those.
        head: As for `Engine.load`.
        ffn: ``dense`` or ``sparse``.
    """
    model = load_folder(folder, packing="t5", head=head, weights="copy", progress=None)
    model.weights.update(idle_tensors(model.spec, gate, down))
    rest: dict[str, Any] = {"num_threads": None, "context_length": None}
    return Engine(folder, model, head=head, kv_cache="f16", ffn=ffn, **rest)


def idle_tensors(spec: dict[str, Any], gate: float, down: float) -> dict[str, Tensor]:
    """Biases of gate_proj and weights of ffn_sub_norm, in each layer of other neurons."""
    random = np.random.default_rng(0)
    neurons = spec["intermediate_size"]
    tensors: dict[str, Tensor] = {}
    for layer in range(spec["num_hidden_layers"]):
        order = random.permutation(neurons)
        bias = np.full(neurons, _CLOSED, np.float32)
        bias[order[: round(gate * neurons)]] = _OPEN
        norm = np.zeros(neurons, np.float32)
        norm[order[: round(down * neurons)]] = 1
        tensors[f"model.layers.{layer}.mlp.gate_proj.bias"] = _tensor(bias)
        tensors[f"model.layers.{layer}.mlp.ffn_sub_norm.weight"] = _tensor(norm)
    return tensors


def _tensor(values: NDArray[np.float32]) -> Tensor:
    return values.view(np.uint8), "f32", values.shape
