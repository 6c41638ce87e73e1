"""The dialects of ternary checkpoints, written with transformers' own code, mean the same to us.

Both conventions of ``weight_scale``, online master weights, norms inside the projections; a scale
taken the wrong way around gives finite, plausible logits that are far away, most plainly without
sub-norms (the Llama form).
"""

import json

import numpy as np
import pytest
import torch
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from random_models import random_text
from safetensors.torch import load_file, save_file
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.integrations.bitnet import pack_weights
from transformers_oracle import Oracle

SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "vocab_size": 150,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,
}
FAMILIES = {
    "bitnet": (BitNetForCausalLM, BitNetConfig, {"tie_word_embeddings": True}),
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True, "head_dim": 32}),
}
DIALECTS = {  # quantization_config; None: no packed weights
    "multiplies": {"linear_class": "autobitlinear", "quantization_mode": "offline"},
    "divides": {"linear_class": "bitlinear"},
    "divides by default": {},
    "online": {"linear_class": "autobitlinear", "quantization_mode": "online"},
    "norms inside": {"linear_class": "autobitlinear", "use_rms_norm": True, "rms_norm_eps": 1e-5},
}
FALCON = {"is_bitnet_config": True, "pretraining_tp": 1}
PUBLISHED = {  # shape, and what else stands in config.json, of models of the Llama form
    "Llama3-8B-1.58": (
        {"num_attention_heads": 8, "num_key_value_heads": 2, "rope_theta": 500000.0},
        {"pretraining_tp": 1, "quantization_config": {"modules_to_not_convert": None}},
    ),
    "Falcon3-1.58bit": (  # heads of another width than hidden_size / heads
        {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64},
        {**FALCON, "quantization_config": {"modules_to_not_convert": ["lm_head"]}},
    ),
    "Falcon-E": (
        {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 12},
        {**FALCON, "quantization_config": {"modules_to_not_convert": ["lm_head"]}},
    ),
}


def write_with_transformers(folder, family, quantization, dtype, seed, shape=(), others=()):
    """A random model saved by transformers, its projections then packed unless they are online."""
    model_class, config_class, options = FAMILIES[family]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SHAPE, **dict(shape)}, **options))
    model.to(dtype).save_pretrained(folder)
    config = {**json.loads((folder / "config.json").read_text()), **dict(others)}
    config["quantization_config"] = {"quant_method": "bitnet", **quantization}
    (folder / "config.json").write_text(json.dumps(config))
    if quantization.get("quantization_mode") == "online":
        return
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        master = tensors[name].float()
        scale = master.abs().mean()
        tensors[name] = pack_weights((master / scale).round().clamp(-1, 1))
        stored = scale if quantization.get("linear_class") == "autobitlinear" else 1 / scale
        tensors[f"{name}_scale"] = stored.reshape(1).to(dtype)
        if quantization.get("use_rms_norm"):
            gain = 1 + 0.3 * torch.randn(master.shape[1])
            tensors[name.replace(".weight", ".rms_norm.weight")] = gain.to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_dialect_means_the_same_as_in_transformers(family, dialect, dtype, tmp_path):
    def write(folder, seed):
        write_with_transformers(folder, family, DIALECTS[dialect], dtype, seed)

    assert_same_as_transformers(write, 6, tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_configs_of_published_models_mean_the_same(name, tmp_path):
    shape, others = PUBLISHED[name]

    def write(folder, seed):
        quantization = others["quantization_config"]
        write_with_transformers(folder, "llama", quantization, torch.bfloat16, seed, shape, others)

    assert_same_as_transformers(write, 4, tmp_path)


def assert_same_as_transformers(write, seeds, tmp_path):
    ours, theirs = [], []
    for seed in range(seeds):
        folder = tmp_path / str(seed)
        write(folder, seed)
        ids = random_text(SHAPE["vocab_size"], 25, seed)
        exact = Oracle(folder, torch.float64).logits(ids)
        ours.append(distances(comparable_engine(folder).logits(ids), exact))
        theirs.append(distances(Oracle(folder, torch.float32).logits(ids), exact))
    assert_like_fp32(ours, theirs)
    assert np.median(np.concatenate(ours)) < 0.1 * np.abs(exact).max()
