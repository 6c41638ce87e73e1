"""Which GGUF architecture describes a spec, its metadata, and which programs read the file.

    sub-norms, relu2   I2_S: bitnet-b1.58          TQ1_0, TQ2_0: bitnet, with its activation
    sub-norms, silu    bitnet
    q/k norms, silu    qwen3
    neither, silu      llama, rows of q and k permuted

A graph here is fixed by the program that reads it, so whatever it leaves out is refused.
Source: ggml-org/llama.cpp, src/models/{bitnet,llama,qwen3}.cpp; its pull request 26751 (relu2);
bitnet.cpp's fork, src/llama.cpp (build_bitnet_158).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.config import ModelConfig, inv_freq
from bitinfer.errors import ExportError
from bitinfer.families.spec import DEFAULTS
from bitinfer.formats.gguf_writer import Value
from bitinfer.json_file import shown

ROPE_FACTORS = "rope_freqs.weight"  # what divides each angle, float32 (head_dim / 2)
_FORK = "bitnet.cpp, ik_llama.cpp"  # the programs that know I2_S
_NOT_DESCRIBED = {"activation_levels"}  # programs that read GGUF quantize as they do


@dataclass(frozen=True)
class Architecture:
    """A GGUF architecture.

    Attributes:
        name: Value of general.architecture.
        programs: What reads such a file.
    """

    name: str
    programs: str


def find_architecture(spec: Mapping[str, Any], kind: str, where: str) -> Architecture:
    """The architecture of a model whose ternary matrices are of ggml type ``kind``.

    Args:
        spec: The decoder's spec, checked.
        kind: TQ1_0, TQ2_0 or I2_S.
        where: The model, for messages.

    Raises:
        ExportError: there is none.
    """
    traits = {name for name in DEFAULTS if spec[name] != DEFAULTS[name]} - _NOT_DESCRIBED
    plain: dict[str, tuple[object, ...]] = {"attention_bias": (False,), "hidden_act": ("silu",)}
    if traits == {"attn_sub_norm", "ffn_sub_norm"}:
        found = _bitnet(spec["hidden_act"], kind)
        wanted = {**plain, "hidden_act": ("silu", "relu2"), "tie_word_embeddings": (True,)}
        wanted["head_dim"] = (spec["hidden_size"] // spec["num_attention_heads"],)
    elif traits == {"qk_norm"}:
        found = Architecture("qwen3", _FORK if kind == "I2_S" else "llama.cpp")
        wanted = plain
    elif not traits:
        found = Architecture("llama", _FORK if kind == "I2_S" else "llama.cpp")
        wanted = {"hidden_act": ("silu",)}
    else:
        listed = ", ".join(f"{name} {shown(spec[name])}" for name in sorted(traits))
        raise ExportError(f"{where}: no architecture of GGUF describes a model with {listed}")
    for name, choices in wanted.items():
        if spec[name] not in choices:
            raise ExportError(
                f"{where}: {name}: expected {' or '.join(map(str, choices))}, as the GGUF"
                f" architecture {found.name} has it, got {shown(spec[name])}"
            )
    if _rope_type(spec) == "llama3" and found.name != "llama":
        raise ExportError(f"{where}: GGUF architecture {found.name} has no rope_type llama3")
    return found


def _bitnet(hidden_act: str, kind: str) -> Architecture:
    if kind == "I2_S":
        return Architecture("bitnet-b1.58" if hidden_act == "relu2" else "bitnet", _FORK)
    since = " since August 2026, earlier ones take silu for relu2" if hidden_act == "relu2" else ""
    return Architecture("bitnet", f"llama.cpp{since}")


def architecture_metadata(architecture: Architecture, spec: Mapping[str, Any]) -> dict[str, Value]:
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
    return {f"{architecture.name}.{key}": value for key, value in keys.items()}


def rope_factors(config: ModelConfig) -> NDArray[np.float32] | None:
    """What rope_type llama3 divides each angle by, (head_dim / 2); None for the other types."""
    if config.rope_scaling is None or config.rope_scaling["rope_type"] != "llama3":
        return None
    factors: NDArray[np.float32] = inv_freq(replace(config, rope_scaling=None)) / inv_freq(config)
    return factors


def _rope_type(spec: Mapping[str, Any]) -> str | None:
    return spec["rope_scaling"]["rope_type"] if spec["rope_scaling"] else None
