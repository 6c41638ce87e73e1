"""Ternary models as Hugging Face folders that transformers and bitinfer load, and back.

model                      written as            projections, in form packed | master
BitNet                     BitNetForCausalLM     autobitlinear, offline | online
Llama                      LlamaForCausalLM      the same
Llama with SubLN           BitNetForCausalLM     the same: that is what a BitNet model is
Qwen3, without or with it  Qwen3ForCausalLM      the same; transformers knows no SubLN in it
any, of binary weights     as it is              binary (docs/models.md), masters alone
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitNetConfig,
    BitNetForCausalLM,
    PreTrainedModel,
)

from bitinfer.errors import CheckpointError, ConfigError, PackedFileError, TokenizerError
from bitinfer.families.binary import LINEAR_CLASS as BINARY
from bitinfer.families.names import SUB_NORMS, canonical_names
from bitinfer.families.spec import HEAD
from bitinfer.formats.new_folder import new_folder
from bitinfer.formats.source import SIDE_FILES
from bitinfer.json_file import read_json_object, shown
from bitinfer.json_values import JsonValues
from bitinfer.tokenizer_file import tokenizer_file
from bitinfer.train.bit_linear import BinaryLinear, BitLinear
from bitinfer.train.quantizers import ABSMEAN_THRESHOLD
from bitinfer.train.ternarizing import ternarize

FORMS = ("packed", "master")
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def save(
    model: PreTrainedModel,
    folder: str | Path,
    form: str = "packed",
    *,
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    replace: bool = False,
) -> Path:
    """Write a ternary model as a Hugging Face folder, whole or not at all.

    Args:
        model: What ``ternarize`` returned; not compiled, not wrapped.
        folder: To make; its parent must exist.
        form: ``packed``: two bits a weight and a scale; ``master``: the weights that were trained.
        dtype: Of all floats but the scales. Masters that are rounded have other codes here and
            there.
        tokenizer: A folder whose tokenizer files come along; None: the model has none.
        replace: A folder that holds such a model is replaced.

    Returns:
        ``folder``.

    Raises:
        PackedFileError: the folder is there and not to be replaced, or cannot be written.
        TokenizerError: there is no tokenizer in the folder given.
        ValueError: the model is not ternary, or cannot be written in this form, or holds NaN.
    """
    _check(model, form)
    config, tensors = _config(model, form, dtype), _tensors(model, form, dtype)
    side_files = {} if tokenizer is None else _side_files(Path(tokenizer))
    folder = Path(folder)
    with new_folder(folder, (*SIDE_FILES, WEIGHTS) if replace else (), WEIGHTS) as fresh:
        for name, content in side_files.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(content)
        (fresh / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        try:
            save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as cause:
            raise PackedFileError(f"{folder}: cannot be written: {cause}") from None
        # save_file keeps the weights from all others, whatever the user's umask is.
        (fresh / WEIGHTS).chmod((fresh / CONFIG).stat().st_mode)
    return folder


def load(folder: str | Path) -> PreTrainedModel:
    """A model that was saved as masters in float32, to train it on.

    Raises:
        CheckpointError: it holds other tensors than its config calls for, or no masters.
        ConfigError: config.json cannot be read.
    """
    folder = Path(folder)
    values = read_json_object(folder / CONFIG, ConfigError)
    quantization = JsonValues(values, CONFIG).object_or_none("quantization_config") or {}
    binary = quantization.get("linear_class") == BINARY
    if not (binary or quantization == _quantization("master")):
        raise CheckpointError(
            f"{folder}: expected a model saved as masters, got quantization_config"
            f" {shown(quantization, 160)}"
        )
    try:
        tensors = load_file(folder / WEIGHTS)
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, SafetensorError) as cause:
        raise CheckpointError(f"{folder}: cannot be loaded: {cause}") from None
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    sub_norm = binary or any(norm in name for name in tensors for norm in SUB_NORMS.values())
    groups = quantization["num_groups"] if binary else 1
    ternarize(model, BINARY if binary else "bitnet", sub_norm=sub_norm, num_groups=groups)
    own = _names(model)
    if own.keys() != tensors.keys():
        odd = min(own.keys() ^ tensors.keys())
        raise CheckpointError(f"{folder}: {odd}: expected the tensors that {CONFIG} calls for")
    model.load_state_dict({own[name]: tensor for name, tensor in tensors.items()}, strict=False)
    return model


def _check(model: PreTrainedModel, form: str) -> None:
    """Refuse a model that is not ternary, and what ``form`` cannot hold."""
    if form not in FORMS:
        raise ValueError(f"form: expected {' or '.join(FORMS)}, got {form!r}")
    linears = [m for m in model.modules() if isinstance(m, BitLinear | BinaryLinear)]
    if not linears:
        raise ValueError("model: expected one of ternary projections: call ternarize first")
    for linear in linears:
        if isinstance(linear, BinaryLinear) and form != "master":
            raise ValueError(f"form: expected master for binary weights, got {form!r}")
        if linear.bias is not None and form == "packed":
            raise ValueError(
                "form: expected master for projections with biases, which transformers multiplies"
                f" by the scale of packed weights, got {form!r}"
            )
        threshold = getattr(linear, "threshold", ABSMEAN_THRESHOLD)
        if form == "master" and threshold != ABSMEAN_THRESHOLD:
            raise ValueError(
                f"form: expected packed for a threshold of {threshold}, which masters do not tell,"
                f" got {form!r}"
            )


def _config(model: PreTrainedModel, form: str, dtype: torch.dtype) -> dict[str, Any]:
    """What config.json says of the model."""
    config, architecture = model.config, type(model).__name__
    sub_norms = any(isinstance(m, BitLinear) and m.norm is not None for m in model.modules())
    if sub_norms and config.model_type == "llama":
        values = config.to_dict()
        config = BitNetConfig(**{k: v for k, v in values.items() if k != "model_type"})
        architecture = BitNetForCausalLM.__name__
    quantization = _quantization(form)
    binary = next((m for m in model.modules() if isinstance(m, BinaryLinear)), None)
    if binary is not None:
        quantization = {
            "quant_method": "bitnet",
            "linear_class": BINARY,
            "num_groups": binary.num_groups,
            "layer_norm_eps": binary.eps,
        }
    return {
        **config.to_diff_dict(),
        "architectures": [architecture],
        "dtype": str(dtype).removeprefix("torch."),
        "quantization_config": quantization,
    }


def _quantization(form: str) -> dict[str, Any]:
    """The quantization_config of ternary weights."""
    return {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": {"packed": "offline", "master": "online"}[form],
    }


def _names(model: PreTrainedModel) -> dict[str, str]:
    """Name in a file to the model's own name, of each tensor that a file holds."""
    own = model.state_dict().keys()
    tied = model.config.tie_word_embeddings
    return canonical_names(name for name in own if not (tied and name == HEAD))


def _tensors(model: PreTrainedModel, form: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Name to value of each tensor of the file."""
    state = model.state_dict()
    modules = {f"{name}.weight": module for name, module in model.named_modules()}
    tensors: dict[str, Tensor] = {}
    for name, own in _names(model).items():
        if not state[own].isfinite().all():
            raise ValueError(f"{own}: expected finite numbers, got others: training has diverged")
        module = modules.get(own)
        if form == "packed" and isinstance(module, BitLinear):
            codes, scale = module.codes()
            tensors[name] = _two_bits(codes).cpu()
            tensors[f"{name}_scale"] = scale.float().reshape(1).cpu()
        else:
            tensors[name] = state[own].to("cpu", dtype).contiguous()
    return tensors


def _two_bits(codes: Tensor) -> Tensor:
    """Codes (N, K) as uint8 (ceil(N / 4), K), two bits each: rows r, r + N/4, ... in one byte."""
    n, k = codes.shape
    rows = -(-n // 4)
    padded = functional.pad(codes + 1, (0, 0, 0, 4 * rows - n), value=1.0).to(torch.uint8)
    first, second, third, fourth = padded.view(4, rows, k)
    return first | second << 2 | third << 4 | fourth << 6


def _side_files(folder: Path) -> dict[str, bytes]:
    """Name to content of the tokenizer's files in ``folder``."""
    if tokenizer_file(folder) is None:
        raise TokenizerError(f"{folder}: expected tokenizer.json or tokenizer.model, got neither")
    names = [name for name in SIDE_FILES if name != CONFIG and (folder / name).is_file()]
    return {name: (folder / name).read_bytes() for name in names}
