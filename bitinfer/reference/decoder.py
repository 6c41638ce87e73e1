"""The whole decoder: which steps a spec asks for, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import float32 as _f
from numpy.typing import NDArray

from bitinfer.reference.arrays import F32, Tensor
from bitinfer.reference.block_attention import attention
from bitinfer.reference.elementary import sin_cos_f32, sum16
from bitinfer.reference.packing import to_f32, unpack
from bitinfer.reference.steps import (
    gated,
    grouped_matmul,
    integer_matmul,
    layer_norm,
    quantize,
    rms_norm,
    rope,
)

TWO_PLANES = 16383  # activation levels of 15 bits


def scale_group(spec: Mapping[str, Any], k: int) -> int | None:
    """Columns of K that share a weight scale in each row; None: the matrix has one scale."""
    if spec["scale_group_size"] is not None:
        return min(int(spec["scale_group_size"]), k)
    return None if spec["scale_group_count"] is None else k // int(spec["scale_group_count"])


class ReferenceDecoder:
    """The decoder over the names, tuples and spec keys that ``_core.Decoder`` takes.

    Args:
        spec: As in ``_core.Decoder``, ``head`` included.
        weights: name → (bytes, dtype or packing, shape); not modified.
        kv_cache: ``"f32"``, ``"f16"`` or ``"int8"``: what keys and values are rounded to.
    """

    def __init__(
        self, spec: Mapping[str, Any], weights: Mapping[str, Tensor], kv_cache: str = "f16"
    ) -> None:
        self.spec, self.weights, self.kv_cache = spec, weights, kv_cache
        self.eps = float(spec["rms_norm_eps"])

    def norm(self, x: F32, name: str) -> F32:
        """RMSNorm of x (T, K) with the tensor ``name``."""
        return rms_norm(x, to_f32(self.weights[name]), self.eps)

    def linear(self, x: F32, name: str) -> F32:
        """Projection ``name`` of x (T, K): (integer sum · act_scale) · weight_scale + bias."""
        raw, packing, (n, k) = self.weights[f"{name}.weight"]
        group, levels = scale_group(self.spec, k), self.spec["activation_levels"]
        w = unpack(raw, packing, n, k, group)
        scales = to_f32(self.weights[f"{name}.weight_scale"])
        if group is None and levels != TWO_PLANES:
            codes, act_scale = quantize(self.own_norm(x, name), levels, -128)
            y: F32 = (integer_matmul(codes, w).astype(np.float32) * act_scale[:, None]) * scales[0]
        else:
            rows = np.full((1, n), scales[0]) if group is None else scales
            codes, act_scale = self.grouped_codes(x, name, group or k)
            y = grouped_matmul(codes, act_scale, w, rows, group or k)
        if f"{name}.bias" in self.weights:
            y = y + to_f32(self.weights[f"{name}.bias"])
        return y

    def grouped_codes(self, x: F32, name: str, group: int) -> tuple[NDArray[np.int32], F32]:
        """Codes (T, K) of x and their scales: (groups, T), or (1, T) of rows as a whole."""
        levels, k = self.spec["activation_levels"], x.shape[-1]
        low = -levels if levels == TWO_PLANES else -128
        step = group if self.spec["activation_groups"] else k
        parts = [
            quantize(self.own_norm(x[:, first : first + step], name, first), levels, low)
            for first in range(0, k, step)
        ]
        codes, scales = zip(*parts, strict=True)
        return np.concatenate(codes, axis=1), np.stack(scales)

    def own_norm(self, x: F32, name: str, first: int = 0) -> F32:
        """Projection ``name``'s norm, if it has one, of columns x (T, K) of its input."""
        kind, eps = self.spec["projection_norm"], self.spec["projection_norm_eps"]
        if kind == "rms_norm":
            gain = to_f32(self.weights[f"{name}.norm.weight"])[first : first + x.shape[-1]]
            return rms_norm(x, gain, eps)
        return layer_norm(x, eps) if kind == "layer_norm" else x

    def embed(self, token_ids: NDArray[np.int32]) -> F32:
        """Embedding rows of the tokens, (T, hidden)."""
        rows = to_f32(self.weights["model.embed_tokens.weight"])[token_ids]
        return rows * _f(self.spec["embedding_multiplier"])

    def window(self, layer: int) -> int | None:
        """Positions that a token sees in a layer of sliding attention; None: all."""
        types = self.spec["layer_types"]
        sliding = types is not None and types[layer] == "sliding_attention"
        return self.spec["sliding_window"] if sliding else None

    def attention(self, x: F32, layer: int) -> F32:
        """Self-attention of normed x (T, hidden) at positions 0..T-1, o_proj included."""
        at, d = f"model.layers.{layer}.self_attn", self.spec["head_dim"]
        q, k, v = (self.linear(x, f"{at}.{p}_proj").reshape(len(x), -1, d) for p in "qkv")
        if self.spec["qk_norm"]:
            q, k = self.norm(q, f"{at}.q_norm.weight"), self.norm(k, f"{at}.k_norm.weight")
        positions = np.arange(len(x), dtype=np.float32)
        window = self.window(layer)
        local = window is not None and self.spec["rope_local_base_freq"] is not None
        table = to_f32(self.weights["rope.local_inv_freq" if local else "rope.inv_freq"])
        sin, cos = sin_cos_f32(positions[:, None] * table)
        factor = _f((self.spec["rope_scaling"] or {}).get("attention_factor", 1.0))
        sin, cos = sin * factor, cos * factor
        out = attention(rope(q, cos, sin), rope(k, cos, sin), v, self.kv_cache, window)
        out = out.reshape(len(x), -1)
        if self.spec["attn_sub_norm"]:
            out = self.norm(out, f"{at}.attn_sub_norm.weight")
        return self.linear(out, f"{at}.o_proj")

    def mlp(self, x: F32, layer: int) -> F32:
        """Gated feed-forward of normed x (T, hidden)."""
        at = f"model.layers.{layer}.mlp"
        gate, up = self.linear(x, f"{at}.gate_proj"), self.linear(x, f"{at}.up_proj")
        h = gated(gate, up, self.spec["hidden_act"])
        if self.spec["ffn_sub_norm"]:
            h = self.norm(h, f"{at}.ffn_sub_norm.weight")
        return self.linear(h, f"{at}.down_proj")

    def layer(self, x: F32, layer: int) -> F32:
        """One decoder layer on the residual stream x (T, hidden)."""
        at = f"model.layers.{layer}"
        attention = self.attention(self.norm(x, f"{at}.input_layernorm.weight"), layer)
        if not self.spec["post_norms"]:
            x = x + attention
            return x + self.mlp(self.norm(x, f"{at}.post_attention_layernorm.weight"), layer)
        x = x + self.norm(attention, f"{at}.post_attention_layernorm.weight")
        mlp = self.mlp(self.norm(x, f"{at}.pre_feedforward_layernorm.weight"), layer)
        return x + self.norm(mlp, f"{at}.post_feedforward_layernorm.weight")

    def head(self, x: F32) -> F32:
        """Logits (T, vocab) of hidden states x (T, hidden)."""
        if self.spec["head"] == "int8":
            raw, _, shape = self.weights["lm_head.weight"]
            codes, act_scale = quantize(x, 16383, -16383)
            head = raw.view(np.int8).reshape(shape)[:, : x.shape[-1]]
            sums = integer_matmul(codes, head).astype(np.float32)
            return (sums * act_scale[:, None]) * to_f32(self.weights["lm_head.weight_scale"])
        tied = "model.embed_tokens.weight" if self.spec["tie_word_embeddings"] else "lm_head.weight"
        rows = to_f32(self.weights[tied])
        return np.stack([sum16(rows * hidden) for hidden in x])

    def hidden(self, token_ids: NDArray[np.int32]) -> F32:
        """Final-normed hidden states (T, hidden) of tokens at positions 0..T-1."""
        x = self.embed(np.asarray(token_ids))
        for i in range(self.spec["num_hidden_layers"]):
            x = self.layer(x, i)
        return self.norm(x, "model.norm.weight")

    def logits(self, token_ids: NDArray[np.int32]) -> F32:
        """Logits (T, vocab) of tokens at positions 0..T-1."""
        return self.head(self.hidden(token_ids))
