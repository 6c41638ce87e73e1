"""The decoder's spec: what differs between families, as JSON-able data under fixed names.

A spec is a dict with exactly the keys of ``make_spec``; packed files store it, the engine and the
reference read it. ``ternary_shapes`` and ``float_shapes`` name the tensors that it calls for; the
head comes beside them: ``lm_head.weight``, or the embedding when tied.
"""

from __future__ import annotations

import math
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
    *("bos_token_id", "sliding_window", "rope_local_base_freq"),
)
TRAITS: Mapping[str, Any] = {
    "attn_sub_norm": False,  # RMSNorm on the joined heads, before o_proj
    "ffn_sub_norm": False,  # RMSNorm on act(gate) * up, before down_proj
    "qk_norm": False,  # RMSNorm on each head of q and k, before RoPE
    "projection_norm": None,  # on each projection's own input: rms_norm, layer_norm (no gain)
    "projection_norm_eps": None,
    "post_norms": False,  # RMSNorm on what attention and FFN add to the residual (Gemma)
    "embedding_multiplier": 1.0,
    "activation_levels": 127,  # of a code: 127, 128 (binary BitNet) or 16383 (two int8 planes)
    "scale_group_size": None,  # columns that share a weight scale, each row its own
    "scale_group_count": None,  # or so many groups of columns; neither: one scale for the matrix
    "activation_groups": False,  # each group of columns is normed and quantized on its own
}
"""What a family decides, by its default."""
DEFAULTS: Mapping[str, Any] = {
    **TRAITS,
    "sliding_window": None,
    "layer_types": None,
    "rope_local_base_freq": None,
}
"""What a spec without the key means: version 1 of packed files began without these."""
_CHOICES = {
    "projection_norm": (None, "rms_norm", "layer_norm"),
    "activation_levels": (127, 128, 16383),
}


def make_spec(config: ModelConfig, **traits: Any) -> dict[str, Any]:
    """The spec of ``config`` and of the ``traits`` that differ from ``TRAITS``."""
    spec: dict[str, Any] = {name: getattr(config, name) for name in _FROM_CONFIG}
    spec["rope_scaling"] = dict(config.rope_scaling) if config.rope_scaling else None
    spec["eos_token_ids"] = list(config.eos_token_ids)
    spec["layer_types"] = list(config.layer_types) if config.layer_types else None
    return {**spec, **TRAITS, **traits}


def check_spec(spec: Mapping[str, Any], where: str, error: type[BitinferError]) -> ModelConfig:
    """Check a complete spec that was read from a file; returns the config that it stands for.

    Raises:
        BitinferError: of class ``error``: a key is missing or unknown, or a value is refused.
    """
    values = dict(spec)
    traits = {name: values.pop(name) for name in TRAITS if name in values}
    values["eos_token_id"] = values.pop("eos_token_ids", None)
    for name, value in traits.items():
        if (expected := _refused(name, value)) is not None:
            raise error(f"{where}: spec: {name}: expected {expected}, got {value!r:.80}")
    try:
        config = ModelConfig.from_dict(values, f"{where}: spec")
    except ConfigError as cause:
        raise error(str(cause)) from None
    whole = make_spec(config, **traits)
    for name in sorted(whole.keys() | spec.keys()):
        got, wanted = spec.get(name), whole.get(name)
        if (
            got != wanted
            or name not in spec
            or isinstance(got, bool) is not isinstance(wanted, bool)
        ):
            raise error(f"{where}: spec: {name}: expected {wanted!r}, got {got!r:.80}")
    if (text := _refused_groups(spec)) is not None:
        raise error(f"{where}: spec: {text}")
    return config


def _refused(name: str, value: object) -> str | None:
    """What a trait can be, if ``value`` is nothing of it."""
    if name in _CHOICES:
        fits = any(value is choice or value == choice for choice in _CHOICES[name])
        return None if fits and not isinstance(value, bool) else f"one of {_CHOICES[name]}"
    if isinstance(TRAITS[name], bool):
        return None if isinstance(value, bool) else "true or false"
    if value is None and TRAITS[name] is None:
        return None
    if name in ("embedding_multiplier", "projection_norm_eps"):
        fits = type(value) is float and math.isfinite(value) and 0 < value < 1e6
        return None if fits else "a number above 0"
    return None if type(value) is int and 1 <= value < 1 << 23 else "a whole number above 0"


def _refused_groups(spec: Mapping[str, Any]) -> str | None:
    """What is wrong with the groups of a spec, whose values are sound one by one."""
    size, count = spec.get("scale_group_size"), spec.get("scale_group_count")
    if size is not None and count is not None:
        return f"scale_group_size: expected null beside a scale_group_count, got {size}"
    if spec.get("activation_groups"):
        if size is None and count is None:
            return "activation_groups: expected false without scale groups, got true"
        if spec.get("projection_norm") is None:
            return "activation_groups: expected false without a projection_norm, got true"
    for _, k in ternary_shapes(spec).values():
        if count is not None and k % count:
            return f"scale_group_count: expected a divisor of {k}, got {count}"
    return None


def scale_group(traits: Mapping[str, Any], k: int) -> int | None:
    """Columns of a matrix of K columns that share a weight scale in each row.

    Args:
        traits: A spec, or what it says of ``scale_group_size`` or ``scale_group_count``.
        k: Columns of the matrix.

    Returns:
        Columns of a group, up to K: the last group may be narrower; None: the matrix has one scale.
    """
    size, count = traits.get("scale_group_size"), traits.get("scale_group_count")
    if size is not None:
        return int(min(size, k))
    return None if count is None else -(-k // count)


def in_groups(spec: Mapping[str, Any]) -> bool:
    """Whether the rows of some matrix have several weight scales."""
    return any((scale_group(spec, k) or k) < k for _, k in ternary_shapes(spec).values())


def scale_shape(traits: Mapping[str, Any], n: int, k: int) -> tuple[int, ...]:
    """Shape of the weight scales of a matrix (N, K): (groups, N), or (1,)."""
    group = scale_group(traits, k)
    return (1,) if group is None else (-(-k // group), n)


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
    in_layer = _norm_shapes(spec)
    for layer in range(spec["num_hidden_layers"]):
        shapes.update({f"model.layers.{layer}.{name}.weight": k for name, k in in_layer.items()})
    for name, (n, k) in ternary_shapes(spec).items():
        if spec["projection_norm"] == "rms_norm":
            shapes[name.removesuffix("weight") + "norm.weight"] = (k,)
        if spec["attention_bias"] and ".self_attn." in name:
            shapes[name.removesuffix("weight") + "bias"] = (n,)
    return shapes


def _norm_shapes(spec: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Module name within a layer to shape of its norms, but those of single projections."""
    hidden = spec["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("input_layernorm", "post_attention_layernorm"), (hidden,)
    )
    if spec["post_norms"]:
        shapes["pre_feedforward_layernorm"] = shapes["post_feedforward_layernorm"] = (hidden,)
    if spec["attn_sub_norm"]:
        shapes["self_attn.attn_sub_norm"] = (spec["num_attention_heads"] * spec["head_dim"],)
    if spec["qk_norm"]:
        shapes["self_attn.q_norm"] = shapes["self_attn.k_norm"] = (spec["head_dim"],)
    if spec["ffn_sub_norm"]:
        shapes["mlp.ffn_sub_norm"] = (spec["intermediate_size"],)
    return shapes


def num_parameters(spec: Mapping[str, Any]) -> int:
    """Weights of all kinds in a model of that spec; a tied head counts once."""
    floats = sum(math.prod(shape) for shape in float_shapes(spec).values())
    ternary = sum(n * k for n, k in ternary_shapes(spec).values())
    head = 0 if spec["tie_word_embeddings"] else spec["vocab_size"] * spec["hidden_size"]
    return int(floats + ternary + head)
