"""The model that a run begins with, and the one that it ends with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from bitinfer.errors import CheckpointError, ConfigError, TrainingError
from bitinfer.formats.new_folder import new_folder
from bitinfer.formats.source import SIDE_FILES
from bitinfer.json_file import read_json_object
from bitinfer.train.bit_linear import BinaryLinear, BitLinear
from bitinfer.train.config import TrainConfig
from bitinfer.train.quantizers import ABSMEAN_THRESHOLD
from bitinfer.train.saving import CONFIG, WEIGHTS, load, save
from bitinfer.train.ternarizing import ternarize

# 5.8 M parameters with a vocabulary of 4,096. `shape` goes over it.
DEFAULT_SHAPE: dict[str, Any] = {
    "model_type": "bitnet",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def new_model(config: TrainConfig, vocab_size: int, bos: int | None, eos: int) -> PreTrainedModel:
    """A model of ``config.shape`` with random weights of ``config.seed``, in fp32, not ternary yet.

    Args:
        config: Of the run.
        vocab_size: Rows of the embedding, unless the shape says how many.
        bos, eos: Ids that go into the model's config.

    Raises:
        ConfigError: transformers refuses the shape, or ``sub_norm`` does not go with it.
    """
    shape = {
        **DEFAULT_SHAPE,
        "vocab_size": vocab_size,
        "max_position_embeddings": config.context_length,
        **config.shape,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": None,
    }
    kind = shape.pop("model_type")
    if kind == "bitnet" and not config.sub_norm:
        raise ConfigError(
            "sub_norm: expected true, a model of bitnet has its norms: take model_type llama"
        )
    torch.manual_seed(config.seed)
    try:
        made = AutoConfig.for_model(kind, **shape)
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
        with torch.no_grad():
            model(torch.zeros(1, 2, dtype=torch.int64))  # a shape may be built, and not run
    except Exception as cause:  # whatever a class of transformers raises for its config
        reason = " ".join(str(cause).split())[:200]
        raise ConfigError(f"shape: expected one that transformers runs, got: {reason}") from None
    return model


def start_model(folder: Path) -> PreTrainedModel:
    """The model of a folder in fp32: masters with their ternary layers, or full precision.

    Raises:
        BitinferError: it cannot be loaded, or holds no weights that can be trained.
    """
    if "quantization_config" in read_json_object(folder / CONFIG, ConfigError):
        return load(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except Exception as cause:  # whatever a class of transformers raises for its files
        reason = " ".join(str(cause).split())[:200]
        raise CheckpointError(f"{folder}: cannot be loaded: {reason}") from None


def is_ternary(model: PreTrainedModel) -> bool:
    """Whether a model has ternary or binary layers."""
    return any(isinstance(module, BitLinear | BinaryLinear) for module in model.modules())


def check_ternary(config: TrainConfig, model: PreTrainedModel) -> None:
    """Refuse what `to_ternary` would refuse, before the first step rather than at the turn.

    Raises:
        ConfigError: the config does not go with this model.
    """
    kind = model.config.model_type
    if config.ternary_from > 0 and config.sub_norm and config.linear == "bitnet" != kind:
        raise ConfigError(
            f"ternary_from: expected 0 where sub_norm adds norms to a {kind}, got"
            f" {config.ternary_from}: take model_type bitnet, which has them, or no sub_norm"
        )
    if config.form == "master" and config.threshold != ABSMEAN_THRESHOLD:
        raise ConfigError(
            f"form: expected packed for a threshold of {config.threshold}, which masters do not"
            " tell, got master"
        )
    with torch.device("meta"):
        to_ternary(config, type(model)(model.config).float())


def to_ternary(config: TrainConfig, model: PreTrainedModel) -> None:
    """Replace the projections by those of ``config.linear``; the parameters stay the same objects.

    Raises:
        ConfigError: that does not go with this model.
    """
    try:
        ternarize(
            model,
            config.linear,
            sub_norm=config.sub_norm,
            num_groups=config.num_groups,
            threshold=config.threshold,
        )
    except ValueError as cause:
        raise ConfigError(str(cause)) from None


def save_model(config: TrainConfig, model: PreTrainedModel, folder: Path, tokenizer: Path) -> None:
    """Write the model of a run with its tokenizer; one that is there is replaced.

    Raises:
        PackedFileError: the disk is full or fails.
        TrainingError: it holds numbers that are not finite.
    """
    if is_ternary(model):
        binary = any(isinstance(module, BinaryLinear) for module in model.modules())
        form = "master" if binary else config.form
        try:
            save(model, folder, form, tokenizer=tokenizer, replace=True)
        except ValueError as cause:
            raise TrainingError(str(cause)) from None
        return
    with new_folder(folder, (*SIDE_FILES, WEIGHTS), WEIGHTS) as fresh:
        for name in SIDE_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, fresh / name)
        try:
            model.save_pretrained(fresh)
        except SafetensorError as cause:
            raise TrainingError(f"{folder}: cannot be written: {cause}") from None
