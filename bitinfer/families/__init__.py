"""Model families: how the config and tensor names of each map to the decoder's spec.

A family is one small file that declares a ``Family``; add it to ``FAMILIES``.
"""

from __future__ import annotations

from pathlib import Path

from bitinfer.config import ModelConfig
from bitinfer.errors import ConfigError
from bitinfer.families import bitnet, gemma3, llama, onebit, qwen3
from bitinfer.families.gguf_source import GgufSource
from bitinfer.families.plan import Family, ModelPlan, make_plan
from bitinfer.formats.gguf_files import find_gguf
from bitinfer.formats.safetensors import Checkpoint
from bitinfer.formats.source import TensorSource
from bitinfer.json_file import shown

FAMILIES = (bitnet.FAMILY, onebit.FAMILY, llama.FAMILY, qwen3.FAMILY, gemma3.FAMILY)


def open_source(path: Path) -> TensorSource:
    """Open a raw checkpoint: a folder of Hugging Face, a GGUF file, or a folder with one.

    Raises:
        BitinferError: it is damaged, or not a kind of model that is known.
    """
    gguf = find_gguf(path)
    return Checkpoint(path) if gguf is None else GgufSource(gguf)


def find_family(config: ModelConfig) -> Family:
    """The family of ``architectures[0]``, or of ``model_type`` where no architecture is given.

    Raises:
        ConfigError: the family is unknown (lists the known ones), or has a part that no family
            here supports.
    """
    for family in FAMILIES:
        served = family.architectures if config.architectures else family.model_types
        asked = config.architectures[0] if config.architectures else config.model_type
        if asked in served:
            if config.mlp_bias:
                raise ConfigError("config.json: mlp_bias: expected false, got true")
            return family
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    key = "architectures" if config.architectures else "model_type"
    raise ConfigError(
        f"config.json: {key}: expected one of {known}, got {shown(asked)}: this architecture is not"
        " supported"
    )


def plan_model(
    config: ModelConfig, source: TensorSource, ternarize: str | None = None
) -> ModelPlan:
    """Check a raw checkpoint's tensors against its config and say what becomes of each.

    Args:
        config: Of the checkpoint.
        source: Its tensors.
        ternarize: ``absmean``: its weights are full precision and are made ternary; None: they are.

    Raises:
        ConfigError: the family or its quantization is not supported.
        CheckpointError: a tensor is missing, unexpected, or of the wrong shape or dtype.
    """
    return make_plan(find_family(config), config, source, ternarize)
