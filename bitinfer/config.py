"""``ModelConfig``: config.json under its Hugging Face names, each value checked, and RoPE's table.

What the names mean to the engine (which tensors, which dialect) is the matter of ``families/``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ConfigError
from bitinfer.json_file import read_json_object
from bitinfer.json_values import JsonValues
from bitinfer.runtime import pow_f64
from bitinfer.yarn import default_attention_factor, yarn_inv_freq

# Parameters of each rope_type beside rope_theta -> whether it must be a whole number.
ROPE_TYPES: dict[str, dict[str, bool]] = {
    "default": {},
    "linear": {"factor": False},
    "llama3": {
        "factor": False,
        "low_freq_factor": False,
        "high_freq_factor": False,
        "original_max_position_embeddings": True,
    },
    "yarn": {
        "factor": False,
        "original_max_position_embeddings": True,
        "beta_fast": False,
        "beta_slow": False,
        "attention_factor": False,
    },
}
_YARN_BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}  # where a config does not name them
# Parts of a RoPE object that say nothing of their own, besides the parameters above.
_ROPE_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_HIDDEN_ACTS = ("relu2", "silu", "gelu_pytorch_tanh")
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class ModelConfig:
    """The values of config.json that decide what a decoder computes.

    ``rope_scaling`` is None or ``{"rope_type": "linear" | "llama3" | "yarn", ...}`` with the
    parameters of that type and nothing else; ``dtype`` is what the checkpoint says its floats are.
    ``sliding_window``, ``layer_types`` and ``rope_local_base_freq`` (RoPE's base in the sliding
    layers, if they have one of their own) are None where no layer has a window.
    """

    architectures: tuple[str, ...]
    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    hidden_act: str
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None
    sliding_window: int | None
    layer_types: tuple[str, ...] | None
    rope_local_base_freq: float | None
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    dtype: str | None
    quantization_config: Mapping[str, Any] | None
    weight_bits: int | None
    input_bits: int | None

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Read config.json at ``path``.

        Raises:
            ConfigError: the file is missing or no strict JSON, or a value is missing, of the wrong
                type, out of range, or at odds with another.
        """
        return cls.from_dict(read_json_object(path, ConfigError), path.name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """Check the parsed ``values``; ``where`` names them in messages.

        Raises:
            ConfigError: see ``from_file``.
        """
        get = JsonValues(values, where)
        heads = get.integer("num_attention_heads", 1, 1 << 16)
        hidden = get.integer("hidden_size", 1, 1 << 20)
        layers = get.integer("num_hidden_layers", 1, 1 << 12)
        theta, scaling, local_theta = _rope(get)
        types = _layer_types(get, layers)
        config = cls(
            architectures=get.names("architectures"),
            model_type=get.text("model_type"),
            vocab_size=(vocab := get.integer("vocab_size", 1, 1 << 24)),
            hidden_size=hidden,
            intermediate_size=get.integer("intermediate_size", 1, 1 << 22),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=get.integer("num_key_value_heads", 1, heads, default=heads),
            head_dim=_head_dim(get, hidden, heads),
            max_position_embeddings=get.integer("max_position_embeddings", 1, 1 << 24),
            rms_norm_eps=get.number("rms_norm_eps", 0.0, 1.0),
            hidden_act=get.choice(_hidden_act_key(get), _HIDDEN_ACTS),
            rope_theta=theta,
            rope_scaling=scaling,
            sliding_window=get.integer("sliding_window", 1, (1 << 23) - 1) if types else None,
            layer_types=types,
            rope_local_base_freq=local_theta if types else None,
            attention_bias=get.boolean("attention_bias"),
            mlp_bias=get.boolean("mlp_bias"),
            tie_word_embeddings=get.boolean("tie_word_embeddings"),
            bos_token_id=get.integer_or_none("bos_token_id", 0, vocab - 1),
            eos_token_ids=_eos_token_ids(get, vocab),
            dtype=get.text_or_none("torch_dtype") or get.text_or_none("dtype"),
            quantization_config=get.object_or_none("quantization_config"),
            weight_bits=get.integer_or_none("weight_bits", 1, 64),
            input_bits=get.integer_or_none("input_bits", 1, 64),
        )
        _refuse_parts(get, config.head_dim)
        if heads % config.num_key_value_heads:
            raise get.error(
                "num_key_value_heads", f"a divisor of {heads} heads", config.num_key_value_heads
            )
        return config


def inv_freq(config: ModelConfig) -> NDArray[np.float32]:
    """RoPE's angle per position, float32 ``(head_dim / 2)``, rounded where torch rounds.

    ``inv_freq[i] = 1 / theta^(2 i / head_dim)``, the exponent, the power and the quotient each
    rounded to float32; then the scaling of ``rope_scaling`` in float32.

    Source: transformers, src/transformers/modeling_rope_utils.py (a number divided by a tensor is,
    in torch, the tensor's reciprocal times the number).
    """
    f32 = np.float32
    table = _plain_inv_freq(config.head_dim, config.rope_theta)
    scaling = config.rope_scaling
    if scaling is None:
        return table
    factor = f32(scaling["factor"])
    if scaling["rope_type"] == "linear":
        return table / factor
    if scaling["rope_type"] == "yarn":
        powers = _powers(config.head_dim, config.rope_theta)
        return yarn_inv_freq(powers, config.head_dim, config.rope_theta, scaling)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    wavelength = (f32(1.0) / table) * f32(2 * math.pi)
    smooth = (f32(1.0) / wavelength) * f32(trained) - f32(low)
    smooth = smooth / f32(high - low)
    blended = (f32(1.0) - smooth) * table / factor + smooth * table
    long = wavelength > f32(trained / low)
    medium = ~(wavelength < f32(trained / high)) & ~long
    return np.where(medium, blended, np.where(long, table / factor, table))


def local_inv_freq(config: ModelConfig) -> NDArray[np.float32] | None:
    """``inv_freq`` of the sliding layers, never scaled; None without a base of their own."""
    if config.rope_local_base_freq is None:
        return None
    return _plain_inv_freq(config.head_dim, config.rope_local_base_freq)


def _plain_inv_freq(head_dim: int, theta: float) -> NDArray[np.float32]:
    table: NDArray[np.float32] = np.float32(1.0) / _powers(head_dim, theta)
    return table


def _powers(head_dim: int, theta: float) -> NDArray[np.float32]:
    """``theta^(2 i / head_dim)`` for each pair i of a head."""
    exponents = np.arange(0, head_dim, 2).astype(np.float32) / np.float32(head_dim)
    return pow_f64(theta, exponents.astype(np.float64)).astype(np.float32)


def _refuse_parts(get: JsonValues, head_dim: int) -> None:
    """Parts of Gemma models that no decoder here has."""
    if get.values.get("query_pre_attn_scalar", head_dim) != head_dim:
        got = get.values["query_pre_attn_scalar"]
        raise get.error("query_pre_attn_scalar", f"{head_dim}, head_dim", got)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if get.values.get(name) is not None:
            raise get.error(name, "null", get.values[name])
    if get.boolean("use_bidirectional_attention"):
        raise get.error("use_bidirectional_attention", "false", True)


def _hidden_act_key(get: JsonValues) -> str:
    """``hidden_act``, or Gemma's name for it."""
    return "hidden_act" if "hidden_act" in get.values else "hidden_activation"


def _layer_types(get: JsonValues, layers: int) -> tuple[str, ...] | None:
    """The type of each layer, from any of the forms in use; None where none has a window."""
    types = get.names("layer_types")
    if types and (len(types) != layers or not set(types) <= set(LAYER_TYPES)):
        expected = f"{' or '.join(LAYER_TYPES)} for each of {layers} layers"
        raise get.error("layer_types", expected, list(types))
    unused = get.values.get("sliding_window") is None or not get.values.get(
        "use_sliding_window", True
    )
    if not types and not unused:
        types = tuple(LAYER_TYPES[i] for i in _are_sliding(get, layers))
    return types if "sliding_attention" in types else None


def _are_sliding(get: JsonValues, layers: int) -> list[bool]:
    """Which layers have a window, where the config gives no ``layer_types``."""
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        if get.values.get(key) is not None:
            period = get.integer(key, 1, 1 << 12)
            return [bool((i + 1) % period) for i in range(layers)]
    if get.values.get("use_sliding_window"):
        first = get.integer("max_window_layers", 0, 1 << 12)
        return [i >= first for i in range(layers)]
    raise get.error("layer_types", "one for each layer, as there is a sliding_window", None)


def _head_dim(get: JsonValues, hidden: int, heads: int) -> int:
    if get.values.get("head_dim") is None and hidden % heads:
        raise get.error("hidden_size", f"a multiple of {heads} heads, or head_dim", hidden)
    head_dim = get.integer("head_dim", 2, 1 << 10, default=hidden // heads)
    if head_dim % 2:
        raise get.error("head_dim", "an even number, RoPE turns pairs", head_dim)
    return head_dim


def _eos_token_ids(get: JsonValues, vocab: int) -> tuple[int, ...]:
    value = get.values.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and 0 <= i < vocab for i in ids):
        raise get.error("eos_token_id", f"token ids from 0 to {vocab - 1}", value)
    return tuple(dict.fromkeys(ids))


def _rope(get: JsonValues) -> tuple[float, Mapping[str, Any] | None, float | None]:
    """rope_theta, the canonical rope_scaling and rope_local_base_freq, from all forms in use."""
    new, old = get.object_or_none("rope_parameters"), get.object_or_none("rope_scaling")
    local = get.number_or_none("rope_local_base_freq", 0.0, 1e18)
    if new and set(new) & set(LAYER_TYPES):
        by_type = JsonValues(new, f"{get.where}: rope_parameters")
        new = by_type.object_or_none("full_attention")
        local = _local_base(by_type) or local
    if new and old and new != old:
        raise get.error("rope_scaling", "the same as rope_parameters, or only one of them", old)
    rope = new or old or {}
    if get.values.get("rope_theta") is not None:
        theta = get.number("rope_theta", 0.0, 1e18)
        if rope.get("rope_theta", theta) != theta:
            raise get.error("rope_theta", f"{rope['rope_theta']} as in rope_parameters", theta)
    elif "rope_theta" in rope:
        theta = JsonValues(rope, f"{get.where}: rope_parameters").number("rope_theta", 0.0, 1e18)
    else:
        raise get.error("rope_theta", "rope_theta, or rope_parameters with it", None)
    return theta, _rope_scaling(JsonValues(rope, f"{get.where}: rope_scaling")), local


def _local_base(by_type: JsonValues) -> float | None:
    """rope_theta of the sliding layers; a scaled one is refused."""
    values = by_type.object_or_none("sliding_attention")
    if values is None:
        return None
    get = JsonValues(values, f"{by_type.where}: sliding_attention")
    if _rope_scaling(get) is not None:
        raise get.error("rope_type", "default", values.get("rope_type"))
    return get.number("rope_theta", 0.0, 1e18)


def _rope_scaling(get: JsonValues) -> Mapping[str, Any] | None:
    kind = get.values.get("rope_type") or get.values.get("type") or "default"
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        raise get.error("rope_type", f"one of {', '.join(ROPE_TYPES)} (no other runs)", kind)
    if get.values.get("partial_rotary_factor", 1) != 1:
        raise get.error("partial_rotary_factor", "1", get.values["partial_rotary_factor"])
    parameters = ROPE_TYPES[kind]
    for name in get.values:
        if name not in parameters and name not in _ROPE_KEYS:
            raise get.error(name, f"only the parameters of rope_type {kind}", get.values[name])
    if kind == "default":
        return None
    scaling: dict[str, Any] = {"rope_type": kind}
    if kind == "yarn":
        given = {name: value for name, value in get.values.items() if value is not None}
        get = JsonValues({**_yarn_defaults(get), **given}, get.where)
    for name, whole in parameters.items():
        scaling[name] = get.integer(name, 1, 1 << 24) if whole else get.number(name, 0.0, 1e6)
    if kind == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        raise get.error(
            "high_freq_factor", f"above {scaling['low_freq_factor']}", scaling["high_freq_factor"]
        )
    return scaling


def _yarn_defaults(get: JsonValues) -> dict[str, float]:
    factor = get.number("factor", 0.0, 1e6)
    return {**_YARN_BETAS, "attention_factor": default_attention_factor(factor)}
