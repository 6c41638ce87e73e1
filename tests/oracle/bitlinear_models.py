"""A torch oracle for models that transformers has no quantized modules for.

transformers' own Llama or Qwen3, in which each projection is a ``BitLinear`` and, where the
checkpoint has them, norms stand before ``o_proj`` and ``down_proj``. The formulas are those of
BitNet b1.58 (arXiv 2402.17764) in the precision of the input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers_oracle import Oracle

SUB_NORMS = {"inner_attn_ln": "o_proj", "ffn_layernorm": "down_proj"}


class BitLinear(torch.nn.Module):
    """``y = quantized(norm(x)) @ weight.T``.

    Args:
        weight: ``(N, K)``, ternary times its scales.
        levels: Largest code of an activation; None: activations are not quantized.
        norm: On the input; None: there is none.
    """

    def __init__(
        self, weight: torch.Tensor, levels: int | None, norm: torch.nn.Module | None
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.levels = levels
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm is not None:
            x = self.norm(x)
        if self.levels is not None:
            scale = self.levels / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
            x = (x * scale).round().clamp(-self.levels, self.levels) / scale
        return torch.nn.functional.linear(x, self.weight)


def absmean(master: torch.Tensor) -> torch.Tensor:
    """A master weight as ternary values times their scale, fp32."""
    scale = 1 / master.double().abs().mean().float().clamp(min=1e-5)
    return (master.float() * scale).round().clamp(-1, 1) / scale


def make_bitlinear(model: torch.nn.Module, *, levels: int | None, masters: bool) -> None:
    """Put a ``BitLinear`` in the place of each projection, and norms before them into it."""
    for name, module in list(model.named_modules()):
        parent, _, kind = name.rpartition(".")
        if kind.endswith("_proj"):
            owner = model.get_submodule(parent)
            weight = absmean(module.weight) if masters else module.weight.detach()
            norm = getattr(owner, f"before_{kind}", None)
            setattr(owner, kind, BitLinear(weight, levels, norm))
            if norm is not None:
                delattr(owner, f"before_{kind}")


def bitlinear_oracle(
    folder: Path, dtype: torch.dtype, *, levels: int | None, masters: bool
) -> Oracle:
    """The model of a checkpoint without quantization_config.

    Args:
        folder: The checkpoint, one file.
        dtype: ``torch.float32`` or ``torch.float64``.
        levels: As in ``BitLinear``.
        masters: The weights are made ternary by absmean; else they are taken as they are.
    """
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    values |= {"architectures": None, "torch_dtype": "float32"}
    config = AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
    norms = {name: t for name, t in tensors.items() if name.split(".")[-2] in SUB_NORMS}
    missing, unexpected = model.load_state_dict(
        {name: t for name, t in tensors.items() if name not in norms}, strict=False, assign=True
    )
    tied = config.tie_word_embeddings
    assert (missing, unexpected) == (["lm_head.weight"] if tied else [], [])
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its angles are no tensor
    for name, t in norms.items():
        layer, kind = name.removesuffix(".weight").rsplit(".", 1)
        norm = LlamaRMSNorm(len(t), config.rms_norm_eps)
        norm.weight.data = t
        model.get_submodule(layer).add_module(f"before_{SUB_NORMS[kind]}", norm)
    make_bitlinear(model, levels=levels, masters=masters)
    return Oracle(folder, dtype, model)
