"""``ModelPlan``: which stored tensor becomes which canonical weight, checked name by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitinfer.config import ModelConfig
from bitinfer.errors import CheckpointError
from bitinfer.families.bitlinear import Dialect, read_dialect
from bitinfer.families.spec import EMBEDDING, HEAD, float_shapes, make_spec, ternary_shapes
from bitinfer.formats.safetensors import Checkpoint, TensorInfo, describe_shape
from bitinfer.json_file import shown

FLOAT_DTYPES = ("BF16", "F16", "F32")
_SHOWN_NAMES = 3  # of a list of wrong names


@dataclass(frozen=True)
class Family:
    """What a family's file declares.

    Attributes:
        architectures: Entries of config.json's ``architectures`` that it serves.
        model_types: Values of ``model_type``, asked where no architecture is given.
        attn_sub_norm: A norm stands before ``o_proj``.
        ffn_sub_norm: A norm stands before ``down_proj``.
        ignored_suffixes: Ends of tensor names that may be in a file and are not needed.
    """

    architectures: tuple[str, ...]
    model_types: tuple[str, ...]
    attn_sub_norm: bool
    ffn_sub_norm: bool
    ignored_suffixes: tuple[str, ...] = field(default=(".rotary_emb.inv_freq",))


@dataclass(frozen=True)
class TernaryWeight:
    """A canonical ternary matrix (N, K) and the stored tensor that it is made from.

    Attributes:
        name: Canonical name, also of the stored weight.
        form: ``packed`` (U8, four rows a byte), ``unpacked`` (float in -1 0 1) or ``master``.
        scale: Name of the stored scale; None for masters.
    """

    name: str
    n: int
    k: int
    form: str
    scale: str | None


@dataclass(frozen=True)
class ModelPlan:
    """All that the canonical weights are made from.

    Attributes:
        spec: The decoder's spec.
        dialect: How the projections are stored.
        ternary: The projections, in the order of the layers.
        floats: Name to shape of the float tensors that are taken as they are; no head among them.
        head: Stored name of the head: ``lm_head.weight``, or the embedding when tied.
    """

    spec: dict[str, Any]
    dialect: Dialect
    ternary: tuple[TernaryWeight, ...]
    floats: Mapping[str, tuple[int, ...]]
    head: str


def make_plan(family: Family, config: ModelConfig, checkpoint: Checkpoint) -> ModelPlan:
    """Check the stored tensors against the config and say what becomes of each.

    Raises:
        ConfigError: ``quantization_config`` declares what is not supported.
        CheckpointError: a tensor is missing, unexpected, or of the wrong shape or dtype.
    """
    spec = make_spec(config, attn_sub_norm=family.attn_sub_norm, ffn_sub_norm=family.ffn_sub_norm)
    shapes = ternary_shapes(spec)
    modules = [name.removesuffix(".weight") for name in shapes]
    dialect = read_dialect(config.quantization_config, modules, "config.json")
    floats = float_shapes(spec)
    head = EMBEDDING if spec["tie_word_embeddings"] else HEAD
    dense = {**floats, head: (spec["vocab_size"], spec["hidden_size"])}
    scales = {} if dialect.online else {name: f"{name}_scale" for name in shapes}

    needed = [*dense, *shapes, *scales.values()]
    _check_names(checkpoint, needed, {HEAD, *needed}, family.ignored_suffixes)
    for name, shape in dense.items():
        _check(checkpoint, name, FLOAT_DTYPES, (shape,))
    for name in scales.values():
        _check(checkpoint, name, FLOAT_DTYPES, ((), (1,)))
    ternary = tuple(
        TernaryWeight(name, n, k, _form(checkpoint, name, n, k, dialect), scales.get(name))
        for name, (n, k) in shapes.items()
    )
    return ModelPlan(spec, dialect, ternary, floats, head)


def _form(checkpoint: Checkpoint, name: str, n: int, k: int, dialect: Dialect) -> str:
    """The form that the stored dtype shows, its shape checked."""
    info = checkpoint.tensors[name]
    if info.dtype == "U8" and not dialect.online:
        _check(checkpoint, name, ("U8",), ((-(-n // 4), k),))
        return "packed"
    _check(checkpoint, name, FLOAT_DTYPES if dialect.online else ("U8", *FLOAT_DTYPES), ((n, k),))
    return "master" if dialect.online else "unpacked"


def _check(
    checkpoint: Checkpoint,
    name: str,
    dtypes: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> None:
    info: TensorInfo = checkpoint.tensors[name]
    if info.dtype not in dtypes or info.shape not in shapes:
        wanted = f"{' or '.join(dtypes)} {describe_shape(shapes[-1])}"
        raise CheckpointError(
            f"{name}: expected {wanted}, got {info} in {checkpoint.path_of(name)}"
        )


def _check_names(
    checkpoint: Checkpoint, needed: list[str], allowed: set[str], ignored: tuple[str, ...]
) -> None:
    missing = [name for name in needed if name not in checkpoint.tensors]
    extra = [
        name for name in checkpoint.tensors if name not in allowed and not name.endswith(ignored)
    ]
    for names, text in (
        (missing, "tensors that the config calls for are missing"),
        (extra, "tensors that the config does not call for are there"),
    ):
        if names:
            listed = ", ".join(shown(name) for name in names[:_SHOWN_NAMES])
            more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
            raise CheckpointError(
                f"{checkpoint.folder}: {text}: {listed}{more}: check that config.json belongs to"
                " these weights"
            )
