"""The full-precision model that a student learns from: a Hugging Face folder or a GGUF file.

Read by the readers of the engine, so that a damaged file is refused in one line, and run by
transformers' own classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen3ForCausalLM
from transformers.initialization import no_init_weights

from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.families import open_source, plan_model
from bitinfer.families.spec import HEAD
from bitinfer.formats.safetensors import as_float32
from bitinfer.formats.source import TensorSource
from bitinfer.model_text import ModelText
from bitinfer.tokenizer import Tokenizer

_CLASSES: dict[str, Any] = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}


@dataclass(frozen=True)
class Teacher:
    """A model of full precision and its text side.

    Attributes:
        model: In fp32 and evaluation mode; no parameter is trained.
        tokenizer: Its tokenizer.
        files: Name to content of the files beside the weights: config, tokenizer, chat template.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    files: Mapping[str, bytes]


def load_teacher(path: Path) -> Teacher:
    """Load a Llama or Qwen3 model of full precision; a GGUF file is dequantized.

    Args:
        path: Model folder, GGUF file, or a folder with one.

    Raises:
        BitinferError: it is damaged, of another kind, has no tokenizer, or is ternary already.
    """
    source = open_source(path)
    if source.config.quantization_config is not None:
        raise ConfigError(
            f"{path}: quantization_config: expected none, of a teacher of full precision, got one:"
            " take the model that it was made from"
        )
    plan = plan_model(source.config, source, "absmean")
    kind = source.config.model_type
    if kind not in _CLASSES:
        raise ConfigError(
            f"{path}: model_type: expected {' or '.join(_CLASSES)} of a teacher, got {kind}"
        )
    tokenizer = ModelText(path).tokenizer(plan.spec)
    stored = {weight.name: weight.stored for weight in plan.ternary} | dict(plan.floats)
    if not plan.spec["tie_word_embeddings"]:
        stored[HEAD] = plan.head
    files = dict(source.side_files())
    config = _CLASSES[kind].config_class(**json.loads(files["config.json"]))
    config.tie_word_embeddings = plan.spec["tie_word_embeddings"]
    with no_init_weights():
        model: PreTrainedModel = _CLASSES[kind](config)
    model.tie_weights()
    tensors = {name: _float(source, place) for name, place in stored.items()}
    if odd := {name for name, _ in model.named_parameters()} ^ tensors.keys():
        raise ConfigError(
            f"{path}: {min(odd)}: expected the tensors of a plain {kind}, got others: take a model"
            " without norms of its own"
        )
    model.load_state_dict(tensors, strict=False)
    model.requires_grad_(requires_grad=False)
    return Teacher(model.eval(), tokenizer, files)


def _float(source: TensorSource, name: str) -> torch.Tensor:
    tensor = source.tensors[name]
    values = as_float32(source.view(name), tensor.dtype)
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise CheckpointError(
            f"{name}: expected finite numbers, got {values[at]} at {at} in {source.path_of(name)}"
        )
    return torch.from_numpy(values.reshape(tensor.shape))
