"""Which GGUF architecture describes a spec, its metadata, and which programs compute it right.

    sub-norms, relu2   bitnet-b1.58
    sub-norms, silu    bitnet
    q/k norms, silu    qwen3
    neither, silu      llama, rows of q and k permuted

A graph is fixed by the program that reads the file, so a model with a part that the graph lacks is
refused. llama.cpp gates ``bitnet`` with silu, whatever the file says (it closed pull requests 25885
and 26751); so does bitnet.cpp ``bitnet-b1.58`` since July 2026 (its issue 588). A relu2 model is
never written as ``bitnet``, which llama.cpp would read and get wrong.
Source: ggml-org/llama.cpp, src/models/{bitnet,llama,qwen3}.cpp; build_bitnet_158 in bitnet.cpp's
fork, src/llama.cpp, and in ikawrakow/ik_llama.cpp, src/graphs/build_bitnet.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.config import ModelConfig, inv_freq
from bitinfer.errors import ExportError
from bitinfer.families.spec import DEFAULTS
from bitinfer.formats.gguf_writer import Value
from bitinfer.json_file import shown

ROPE_FACTORS = "rope_freqs.weight"  # what divides each angle, float32 (head_dim / 2)
_NOT_DESCRIBED = {"activation_levels"}  # programs that read GGUF quantize as they do
_TERNARY_BLOCKS, _I2_S = "TQ1_0 or TQ2_0", "I2_S"
_PROGRAMS = {
    ("bitnet-b1.58", _TERNARY_BLOCKS): "bitnet.cpp before July 2026",
    ("bitnet-b1.58", _I2_S): "bitnet.cpp before July 2026, ik_llama.cpp",
    ("bitnet", _TERNARY_BLOCKS): "llama.cpp",
    ("bitnet", _I2_S): "bitnet.cpp",
    ("qwen3", _TERNARY_BLOCKS): "llama.cpp",
    ("qwen3", _I2_S): "bitnet.cpp since July 2026",
    ("llama", _TERNARY_BLOCKS): "llama.cpp",
    ("llama", _I2_S): "bitnet.cpp",
}


def programs(architecture: str, kind: str) -> str:
    """What computes a model right from a file of that architecture and ternary type."""
    return _PROGRAMS[architecture, _I2_S if kind == _I2_S else _TERNARY_BLOCKS]


def find_architecture(spec: Mapping[str, Any], where: str) -> str:
    """The value of general.architecture that describes a model.

    Args:
        spec: The decoder's spec, checked.
        where: The model, for messages.

    Raises:
        ExportError: there is none.
    """
    traits = {name for name in DEFAULTS if spec[name] != DEFAULTS[name]} - _NOT_DESCRIBED
    plain: dict[str, tuple[object, ...]] = {"attention_bias": (False,), "hidden_act": ("silu",)}
    if traits == {"attn_sub_norm", "ffn_sub_norm"}:
        found = "bitnet-b1.58" if spec["hidden_act"] == "relu2" else "bitnet"
        wanted = {**plain, "hidden_act": ("silu", "relu2"), "tie_word_embeddings": (True,)}
        wanted["head_dim"] = (spec["hidden_size"] // spec["num_attention_heads"],)
    elif traits == {"qk_norm"}:
        found = "qwen3"
        wanted = plain
    elif not traits:
        found = "llama"
        wanted = {"hidden_act": ("silu",)}
    else:
        listed = ", ".join(sorted(traits))
        raise ExportError(
            f"{where}: no architecture of GGUF that is written here has {listed}: such a model"
            " cannot be exported"
        )
    for name, choices in wanted.items():
        if spec[name] not in choices:
            raise ExportError(
                f"{where}: {name}: expected {' or '.join(map(str, choices))}, as the GGUF"
                f" architecture {found} has it, got {shown(spec[name])}"
            )
    if _rope_type(spec) == "llama3" and found != "llama":
        raise ExportError(f"{where}: GGUF architecture {found} has no rope_type llama3")
    if _rope_type(spec) == "yarn":
        raise ExportError(f"{where}: rope_type yarn is not exported to GGUF")
    return found


def architecture_metadata(architecture: str, spec: Mapping[str, Any]) -> dict[str, Value]:
    """What GGUF's keys say of ``spec``, each with the architecture before it."""
    keys: dict[str, Value] = {
        "vocab_size": spec["vocab_size"],
        "context_length": spec["max_position_embeddings"],
        "embedding_length": spec["hidden_size"],
        "block_count": spec["num_hidden_layers"],
        "feed_forward_length": spec["intermediate_size"],
        "rope.dimension_count": spec["head_dim"],
        "attention.head_count": spec["num_attention_heads"],
        "attention.head_count_kv": spec["num_key_value_heads"],
        "attention.key_length": spec["head_dim"],
        "attention.value_length": spec["head_dim"],
        "attention.layer_norm_rms_epsilon": float(spec["rms_norm_eps"]),
        "rope.freq_base": float(spec["rope_theta"]),
    }
    if spec["hidden_act"] != "silu":
        keys["hidden_activation"] = spec["hidden_act"]
    if _rope_type(spec) == "linear":
        keys["rope.scaling.type"] = "linear"
        keys["rope.scaling.factor"] = float(spec["rope_scaling"]["factor"])
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def rope_factors(config: ModelConfig) -> NDArray[np.float32] | None:
    """What rope_type llama3 divides each angle by, (head_dim / 2); None for the other types."""
    if config.rope_scaling is None or config.rope_scaling["rope_type"] != "llama3":
        return None
    factors: NDArray[np.float32] = inv_freq(replace(config, rope_scaling=None)) / inv_freq(config)
    return factors


def _rope_type(spec: Mapping[str, Any]) -> str | None:
    return spec["rope_scaling"]["rope_type"] if spec["rope_scaling"] else None
