"""The metadata of a GGUF file as the values of config.json, under Hugging Face's names.

``ModelConfig`` checks the values. What the metadata say beyond them is refused here, unless it is
switched off: a model runs as it was trained, or not at all.
Source: ggml-org/ggml, docs/gguf.md; ggml-org/llama.cpp, src/llama-arch.cpp, src/models/bitnet.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer.config import ModelConfig, inv_freq
from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.families.gguf_architecture import ROPE_FACTORS, rope_factors
from bitinfer.families.gguf_names import GGUF_BIAS, GGUF_EMBEDDING, GGUF_HEAD
from bitinfer.families.gguf_text import POOLING_KEY, GgufText
from bitinfer.formats.gguf import GgufFile
from bitinfer.json_file import shown


class _Architecture(NamedTuple):
    """A value of ``general.architecture`` as Hugging Face has it."""

    architecture: str
    model_type: str
    hidden_act: str


_BITNET = _Architecture("BitNetForCausalLM", "bitnet", "relu2")
_ARCHITECTURES = {
    "bitnet": _BITNET._replace(hidden_act="silu"),  # 1bitLLM's
    "bitnet-25": _BITNET,
    "bitnet-b1.58": _BITNET,
    "llama": _Architecture("LlamaForCausalLM", "llama", "silu"),
    "qwen3": _Architecture("Qwen3ForCausalLM", "qwen3", "silu"),
}
# bitnet.cpp writes 1bitLLM's models as bitnet-b1.58 too; only their vocabulary tells them apart.
_1BITLLM_VOCABULARY = 32002

_NUMBERS = {  # key behind "<architecture>." -> Hugging Face's name
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "hidden_activation": "hidden_act",
    "rope.freq_base": "rope_theta",
}
_READ_HERE = (
    *("vocab_size", "attention.value_length", "rope.dimension_count", "rope.scaling.type"),
    *("rope.scaling.factor", "rope.scale_linear"),
    *("rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast"),
    "rope.scaling.yarn_beta_slow",
)
# They say nothing of what the decoder computes.
_IGNORED = ("tensor_data_layout", "attention.causal", "rope.scaling.finetuned", POOLING_KEY)
_DEFAULT_ROPE_THETA = 10000.0
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # of all models of its kind
_LLAMA3_CONTEXT = 8192  # that they were trained with first, where the factors do not tell
_OFF = (0, "", "none")  # a key that is not understood may have such a value
_ACTS = {"relu_sqr": "relu2", "swiglu": "silu"}  # other spellings


def config_values(file: GgufFile, text: GgufText, *, ternary: bool) -> dict[str, Any]:
    """What config.json of the same model would hold.

    Args:
        file: The file.
        text: What its metadata say of text.
        ternary: Its projections are ternary.

    Raises:
        ConfigError: the architecture is not known, a key is missing, or one asks for what the
            decoder does not do.
        CheckpointError: a scaling of RoPE is not known.
    """
    where = file.path.name
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        choices = ", ".join(_ARCHITECTURES)
        raise ConfigError(
            f"{where}: general.architecture: expected one of {choices}, got {shown(repr(name))}:"
            " this architecture is not supported"
        )
    keys = {
        key.removeprefix(f"{name}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{name}.")
    }
    _check_keys(where, name, keys)
    known = _ARCHITECTURES[name]
    values = {ours: _plain(keys[key]) for key, ours in _NUMBERS.items()}
    values |= {ours: _plain(keys[key]) for key, ours in _OPTIONAL.items() if key in keys}
    values.setdefault("rope_theta", _DEFAULT_ROPE_THETA)
    vocab = _vocab_size(file, keys)
    act = "silu" if name == "bitnet-b1.58" and vocab == _1BITLLM_VOCABULARY else known.hidden_act
    act = values.get("hidden_act", act)
    values |= {
        "architectures": [known.architecture],
        "model_type": known.model_type,
        "vocab_size": vocab,
        "hidden_act": _ACTS.get(act, act) if isinstance(act, str) else act,
        "rope_scaling": _rope_scaling(where, name, keys),
        "attention_bias": GGUF_BIAS in file.tensors,
        "tie_word_embeddings": GGUF_HEAD not in file.tensors,
        "bos_token_id": text.bos_token_id,
        "eos_token_id": list(text.eos_token_ids) or None,
    }
    if ternary:
        values["quantization_config"] = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    _check_head_dim(where, name, keys, values)
    if ROPE_FACTORS in file.tensors:
        values["rope_scaling"] = _llama3_scaling(file, values)
    return values


def _check_keys(where: str, name: str, keys: Mapping[str, Any]) -> None:
    """Name what is missing, and what is not understood and not switched off."""
    missing = [f"{name}.{key}" for key in _NUMBERS if key not in keys]
    if missing:
        raise ConfigError(
            f"{where}: expected the keys of a whole model, got none of {', '.join(missing)}: the"
            " file is damaged or of another kind"
        )
    for key, value in keys.items():
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"{where}: {name}.{shown(key)}: expected one value, got a list: models with"
                " different layers are not supported"
            )
    understood = {*_NUMBERS, *_OPTIONAL, *_READ_HERE, *_IGNORED}
    for key, value in keys.items():
        if key not in understood and value not in _OFF:
            raise ConfigError(
                f"{where}: {name}.{shown(key)}: expected no such key, got {shown(repr(value))}:"
                " what it asks for is not supported"
            )
    if keys.get("attention.causal", True) is not True:
        raise ConfigError(
            f"{where}: {name}.attention.causal: expected true, got false: encoders are not"
            " supported"
        )


def _vocab_size(file: GgufFile, keys: Mapping[str, Any]) -> Any:
    """Rows of the embedding, of which ``vocab_size`` may state as many or fewer."""
    embedding, stated = file.tensors.get(GGUF_EMBEDDING), keys.get("vocab_size")
    if embedding is None:
        return stated
    rows = embedding.shape[0]
    if type(stated) is int and stated > rows:
        raise ConfigError(
            f"{file.path}: vocab_size: expected at most {rows}, the rows of {GGUF_EMBEDDING}, got"
            f" {stated}: the file is damaged, download it again"
        )
    return rows


def _check_head_dim(
    where: str, name: str, keys: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """All of a head is rotated, and its values are as wide as its keys."""
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    if type(hidden) is not int or type(heads) is not int or heads < 1:
        return  # ModelConfig says so
    head_dim = values.get("head_dim", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.get(key, head_dim) != head_dim:
            raise ConfigError(
                f"{where}: {name}.{key}: expected {head_dim}, the width of a head, got"
                f" {shown(repr(keys[key]))}"
            )


def _rope_scaling(where: str, name: str, keys: Mapping[str, Any]) -> dict[str, Any] | None:
    """In Hugging Face's form; a type that is not known there is refused by ``ModelConfig``."""
    kind = keys.get("rope.scaling.type")
    factor = keys.get("rope.scaling.factor", keys.get("rope.scale_linear", 1.0))
    if kind in (None, "", "none", "linear") and factor in (0, 1):
        return None
    if kind in ("", "none"):
        raise ConfigError(
            f"{where}: {name}.rope.scaling.factor: expected 1, as there is no scaling, got"
            f" {shown(repr(factor))}"
        )
    scaling = {"rope_type": kind or "linear", "factor": _plain(factor)}
    if kind == "yarn":
        trained = keys.get("rope.scaling.original_context_length", keys["context_length"])
        scaling["original_max_position_embeddings"] = trained
        for beta in ("beta_fast", "beta_slow"):
            if f"rope.scaling.yarn_{beta}" in keys:
                scaling[beta] = _plain(keys[f"rope.scaling.yarn_{beta}"])
    return scaling


def _llama3_scaling(file: GgufFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """Llama 3's scaling, of which the file has what divides each angle.

    Raises:
        CheckpointError: it is another scaling.
    """
    factors = file.floats(ROPE_FACTORS)
    config = ModelConfig.from_dict({**values, "rope_scaling": None}, file.path.name)
    frequencies = inv_freq(config)
    if factors.shape == frequencies.shape and np.isfinite(factors).all() and factors.min() >= 1:
        scaling = {"rope_type": "llama3", **_LLAMA3, **_llama3_parameters(factors, frequencies)}
        config = ModelConfig.from_dict({**values, "rope_scaling": scaling}, file.path.name)
        expected = rope_factors(config)
        if expected is not None and np.allclose(factors, expected):
            return scaling
    raise CheckpointError(
        f"{ROPE_FACTORS}: expected the factors of Llama 3's RoPE scaling, got others in"
        f" {file.path}: they are not supported"
    )


def _llama3_parameters(
    factors: NDArray[np.float32], frequencies: NDArray[np.float32]
) -> dict[str, Any]:
    """Factor and first context of Llama 3's scaling, from the angles that it divides in part."""
    largest = float(f"{factors.max():.6g}")  # a number as somebody has chosen it
    context = _LLAMA3_CONTEXT
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    if largest > 1:
        shares = (1 / factors.astype(np.float64) - 1 / largest) / (1 - 1 / largest)
        middle = np.abs(shares - 0.5).argmin()
        if 0 < shares[middle] < 1:
            waves = low + shares[middle] * (high - low)
            context = round(waves * 2 * math.pi / float(frequencies[middle]))
    return {"factor": largest, "original_max_position_embeddings": context}


def _plain(value: object) -> Any:
    """A number as a user would have written it: metadata hold floats in 32 bits."""
    if not isinstance(value, float):
        return value
    nearest = np.float32(value)
    return float(str(nearest)) if float(nearest) == value else value
