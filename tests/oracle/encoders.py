"""Random encoders in the form of BitNet-Embedding, of transformers' own Qwen3 and Gemma3 modules.

Each projection is ``RMSNorm → absmax int8 → absmean ternary``. The checkpoint is that of the model
without its head, under names without a prefix.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from bitlinear_models import make_bitlinear
from safetensors.torch import save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers_oracle import Oracle

SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "vocab_size": 150,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.5,
    "tie_word_embeddings": True,
    "attn_implementation": "eager",
}
WINDOWS = {
    "query_pre_attn_scalar": 32,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
FAMILIES: dict[str, Any] = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}, "Qwen3Model"),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, WINDOWS, "Gemma3TextModel"),
}


def _make(family: str, seed: int) -> PreTrainedModel:
    """The model with master weights, random gains, and norms that wait for their projections."""
    model_class, config_class, options, _ = FAMILIES[family]
    torch.manual_seed(seed)
    config = config_class(**SHAPE, **options)
    model: PreTrainedModel = model_class(config).float()
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.data += 0.3 * torch.randn_like(module.weight)
        elif name.endswith("_proj"):
            norm = Qwen3RMSNorm(module.in_features, eps=config.rms_norm_eps)
            norm.weight.data += 0.3 * torch.randn_like(norm.weight)
            parent, _, kind = name.rpartition(".")
            model.get_submodule(parent).add_module(f"before_{kind}", norm)
    return model


def write_encoder(folder: Path, family: str, seed: int) -> Path:
    """The checkpoint of a random encoder."""
    model = _make(family, seed)
    folder.mkdir(parents=True)
    values = {**model.config.to_dict(), "architectures": [FAMILIES[family][-1]]}
    (folder / "config.json").write_text(json.dumps(values))
    tensors = {}
    for name, tensor in model.model.state_dict().items():
        parent, _, end = name.partition(".before_")
        stored = f"{parent}.{end.removesuffix('.weight')}.norm.weight" if end else name
        tensors[stored] = tensor.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def encoder_oracle(folder: Path, family: str, seed: int, dtype: torch.dtype) -> Oracle:
    """The same model in torch."""
    model = _make(family, seed)
    make_bitlinear(model, levels=127, masters=True)
    return Oracle(folder, dtype, model)
