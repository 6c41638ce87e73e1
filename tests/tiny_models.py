"""Tiny random decoders: spec and canonical weights for ``_core.Decoder`` and the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer import _core
from bitinfer.families.spec import DEFAULTS, scale_group, scale_shape

Spec = dict[str, Any]
Weights = dict[str, tuple[np.ndarray, str, tuple[int, ...]]]

BITNET = {
    **DEFAULTS,
    "model_type": "bitnet",
    "vocab_size": 101,
    "hidden_size": 72,
    "intermediate_size": 136,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "relu2",
    "attn_sub_norm": True,
    "ffn_sub_norm": True,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "bos_token_id": 1,
    "eos_token_ids": [2],
}
LLAMA = {
    **BITNET,
    "model_type": "llama",
    "hidden_act": "silu",
    "attn_sub_norm": False,
    "ffn_sub_norm": False,
    "tie_word_embeddings": False,
}


def float_tensor(x: np.ndarray, dtype: str) -> tuple[np.ndarray, str, tuple[int, ...]]:
    """x as a canonical float tensor; bf16 by cutting the low mantissa bits."""
    if dtype == "bf16":
        raw = (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        raw = np.ascontiguousarray(x, {"f32": np.float32, "f16": np.float16}[dtype])
    return raw.reshape(-1).view(np.uint8), dtype, x.shape


def make_tiny_model(
    overrides: Spec | None = None,
    *,
    base: Spec = BITNET,
    packing: str = "i2",
    head: str = "int8",
    embedding_dtype: str = "bf16",
    bias: bool = False,
    seed: int = 0,
) -> tuple[Spec, Weights]:
    """A random model; equal arguments but ``packing`` and ``head`` give the same ternary
    weights; those of b1 have 1 for 0.

    Args:
        overrides: Spec values that differ from ``base``.
        base: ``BITNET`` (relu2, sub-norms, tied) or ``LLAMA`` (silu, no sub-norms, separate head).
        packing: Of all ternary matrices.
        head: ``"int8"`` or ``"source"``.
        embedding_dtype: Of the embedding and the separate head.
        bias: Give every projection a bias.
        seed: Of all random numbers.
    """
    spec = {**base, **(overrides or {}), "head": head}
    spec["attention_bias"] = bias
    rng = np.random.default_rng(seed)
    h, ffn, d = spec["hidden_size"], spec["intermediate_size"], spec["head_dim"]
    q, kv = spec["num_attention_heads"] * d, spec["num_key_value_heads"] * d
    weights: Weights = {}

    def norm(name: str, n: int) -> None:
        weights[name] = float_tensor(rng.normal(1.0, 0.3, n), "bf16")

    def linear(name: str, n: int, k: int) -> None:
        w = rng.choice(np.array([-1, 0, 1], np.int8), (n, k), p=[0.3, 0.4, 0.3])
        w = w | np.int8(1) if packing == "b1" else w  # it holds no 0
        group = scale_group(spec, k)
        weights[f"{name}.weight"] = (_core.pack(w, packing, group=group), packing, (n, k))
        scale = rng.uniform(0.5, 2.0, scale_shape(spec, n, k)) / np.sqrt(k)
        weights[f"{name}.weight_scale"] = float_tensor(scale, "f16" if group else "f32")
        if spec["projection_norm"] == "rms_norm":
            norm(f"{name}.norm.weight", k)
        shift = rng.normal(0.0, 0.3, n)
        if bias:
            weights[f"{name}.bias"] = float_tensor(shift, "f16")

    embedding = float_tensor(rng.normal(0.0, 1.0, (spec["vocab_size"], h)), embedding_dtype)
    weights["model.embed_tokens.weight"] = embedding
    norm("model.norm.weight", h)
    exponents = np.arange(0, d, 2) / d
    weights["rope.inv_freq"] = float_tensor(1.0 / spec["rope_theta"] ** exponents, "f32")
    if spec["rope_local_base_freq"]:
        table = 1.0 / spec["rope_local_base_freq"] ** exponents
        weights["rope.local_inv_freq"] = float_tensor(table, "f32")
    for i in range(spec["num_hidden_layers"]):
        at = f"model.layers.{i}"
        norm(f"{at}.input_layernorm.weight", h)
        norm(f"{at}.post_attention_layernorm.weight", h)
        if spec["post_norms"]:
            norm(f"{at}.pre_feedforward_layernorm.weight", h)
            norm(f"{at}.post_feedforward_layernorm.weight", h)
        if spec["qk_norm"]:
            norm(f"{at}.self_attn.q_norm.weight", d)
            norm(f"{at}.self_attn.k_norm.weight", d)
        if spec["attn_sub_norm"]:
            norm(f"{at}.self_attn.attn_sub_norm.weight", q)
        if spec["ffn_sub_norm"]:
            norm(f"{at}.mlp.ffn_sub_norm.weight", ffn)
        for name, rows, columns in (("q", q, h), ("k", kv, h), ("v", kv, h), ("o", h, q)):
            linear(f"{at}.self_attn.{name}_proj", rows, columns)
        for name, rows, columns in (("gate", ffn, h), ("up", ffn, h), ("down", h, ffn)):
            linear(f"{at}.mlp.{name}_proj", rows, columns)

    untied = float_tensor(rng.normal(0.0, 1.0, (spec["vocab_size"], h)), embedding_dtype)
    rows = embedding if spec["tie_word_embeddings"] else untied
    if head == "int8":
        codes, scales = _core.quantize_rows_i8(rows[0], rows[1], *rows[2])
        weights["lm_head.weight"] = (codes.reshape(-1).view(np.uint8), "i8", codes.shape)
        weights["lm_head.weight_scale"] = float_tensor(scales, "f32")
    elif not spec["tie_word_embeddings"]:
        weights["lm_head.weight"] = rows
    return spec, weights
