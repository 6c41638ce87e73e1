"""Gemma3 (text) with BitLinear projections: BitNet-Embedding's 270m.

Norms multiply by 1 + w, which is what is stored here. Embedding rows are scaled, norms stand behind
attention and FFN too, layers of sliding attention turn by a RoPE base of their own. Source:
transformers, src/transformers/models/gemma3/modeling_gemma3.py.
"""

import math
from typing import Any

from bitinfer.config import ModelConfig
from bitinfer.errors import ConfigError
from bitinfer.families.plan import Family


def _traits(config: ModelConfig) -> dict[str, Any]:
    if config.layer_types and config.rope_local_base_freq is None:
        raise ConfigError(
            "config.json: rope_local_base_freq: expected one, as there are layers of sliding"
            " attention, got nothing"
        )
    return {
        "qk_norm": True,
        "post_norms": True,
        "embedding_multiplier": math.sqrt(config.hidden_size),
    }


FAMILY = Family(
    architectures=("Gemma3ForCausalLM", "Gemma3TextModel"),
    model_types=("gemma3_text",),
    traits=_traits,
    unit_offset=True,
    tied=True,
)
