"""The decoder's spec: what differs between families, as JSON-able data under fixed names.

A spec is a dict with exactly the keys of ``make_spec``; packed files store it, the engine and the
reference read it. ``ternary_shapes`` and ``float_shapes`` name the tensors that it calls for; the
head comes beside them: ``lm_head.weight``, or the embedding when tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitinfer.config import ModelConfig
from bitinfer.errors import BitinferError, ConfigError

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
HEAD_SCALE = "lm_head.weight_scale"

_FROM_CONFIG = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    *("rms_norm_eps", "hidden_act", "attention_bias", "tie_word_embeddings", "rope_theta"),
    "bos_token_id",
)


def make_spec(config: ModelConfig, *, attn_sub_norm: bool, ffn_sub_norm: bool) -> dict[str, Any]:
    """The spec of ``config``; the sub-norms stand before ``o_proj`` and ``down_proj``."""
    spec: dict[str, Any] = {name: getattr(config, name) for name in _FROM_CONFIG}
    spec["rope_scaling"] = dict(config.rope_scaling) if config.rope_scaling else None
    spec["eos_token_ids"] = list(config.eos_token_ids)
    spec["attn_sub_norm"] = attn_sub_norm
    spec["ffn_sub_norm"] = ffn_sub_norm
    return spec


def check_spec(spec: Mapping[str, Any], where: str, error: type[BitinferError]) -> ModelConfig:
    """Check a spec that was read from a file; returns the config that it stands for.

    Raises:
        BitinferError: of class ``error``: a key is missing or unknown, or a value is refused.
    """
    values = dict(spec)
    sub_norms = {name: values.pop(name, None) for name in ("attn_sub_norm", "ffn_sub_norm")}
    values["eos_token_id"] = values.pop("eos_token_ids", None)
    try:
        config = ModelConfig.from_dict(values, f"{where}: spec")
    except ConfigError as cause:
        raise error(str(cause)) from None
    expected = make_spec(
        config,
        attn_sub_norm=sub_norms["attn_sub_norm"] is True,
        ffn_sub_norm=sub_norms["ffn_sub_norm"] is True,
    )
    for name in sorted(expected.keys() | spec.keys()):
        got, wanted = spec.get(name), expected.get(name)
        if (
            got != wanted
            or name not in spec
            or isinstance(got, bool) is not isinstance(wanted, bool)
        ):
            raise error(f"{where}: spec: {name}: expected {wanted!r}, got {got!r:.80}")
    return config


def ternary_shapes(spec: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Name to (out_features N, in_features K) of each ternary matrix, in layer order."""
    hidden, inner = spec["hidden_size"], spec["intermediate_size"]
    queries = spec["num_attention_heads"] * spec["head_dim"]
    keys = spec["num_key_value_heads"] * spec["head_dim"]
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    return {
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(spec["num_hidden_layers"])
        for name, shape in shapes.items()
    }


def float_shapes(spec: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name to shape of each float tensor but the head: embedding, norms and biases."""
    hidden = spec["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (spec["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(spec["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
        if spec["attn_sub_norm"]:
            queries = spec["num_attention_heads"] * spec["head_dim"]
            shapes[f"{prefix}self_attn.attn_sub_norm.weight"] = (queries,)
        if spec["ffn_sub_norm"]:
            shapes[f"{prefix}mlp.ffn_sub_norm.weight"] = (spec["intermediate_size"],)
    if spec["attention_bias"]:
        for name, (n, _) in ternary_shapes(spec).items():
            if ".self_attn." in name:
                shapes[name.removesuffix("weight") + "bias"] = (n,)
    return shapes


def num_parameters(spec: Mapping[str, Any]) -> int:
    """Weights of all kinds in a model of that spec; a tied head counts once."""
    hidden, inner = spec["hidden_size"], spec["intermediate_size"]
    queries = spec["num_attention_heads"] * spec["head_dim"]
    keys = spec["num_key_value_heads"] * spec["head_dim"]
    layer = 2 * hidden * (queries + keys) + 3 * hidden * inner + 2 * hidden
    layer += spec["attn_sub_norm"] * queries + spec["ffn_sub_norm"] * inner
    layer += spec["attention_bias"] * (queries + 2 * keys + hidden)
    embeddings = (1 if spec["tie_word_embeddings"] else 2) * spec["vocab_size"] * hidden
    return int(embeddings + spec["num_hidden_layers"] * layer + hidden)
