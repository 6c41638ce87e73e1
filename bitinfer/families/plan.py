"""``ModelPlan``: which stored tensor becomes which canonical weight, checked name by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bitinfer.config import ModelConfig
from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.families.bitlinear import Dialect, check_bits, read_dialect
from bitinfer.families.names import FIRST_PROJECTION_NORM, canonical_names, is_gain
from bitinfer.families.scaled import FLOAT_LEVELS, scale_layout
from bitinfer.families.spec import EMBEDDING, HEAD, float_shapes, make_spec, ternary_shapes
from bitinfer.formats.safetensors import describe_shape
from bitinfer.formats.source import TRITS, TensorSource
from bitinfer.json_file import shown

FLOAT_DTYPES = ("BF16", "F16", "F32")
_SHOWN_NAMES = 3  # of a list of wrong names
_WRONG_CONFIG = "check that config.json belongs to these weights"


@dataclass(frozen=True)
class Family:
    """What a family's file declares.

    Attributes:
        architectures: Entries of config.json's ``architectures`` that it serves.
        model_types: Values of ``model_type``, asked where no architecture is given.
        traits: What differs from the defaults of the spec (``spec.TRAITS``), maybe by the config.
        optional: Traits that a model of the family has where the first layer has a tensor of it:
            trait to that tensor's name within the layer.
        masters: Its weights are masters, which no quantization_config says.
        unit_offset: Norms multiply by 1 + the stored gain; those of single projections do not.
        tied: Where no head is stored it is the embedding, whatever the config leaves out.
        ignored_suffixes: Ends of tensor names that may be in a file and are not needed.
    """

    architectures: tuple[str, ...]
    model_types: tuple[str, ...]
    traits: Mapping[str, Any] | Callable[[ModelConfig], Mapping[str, Any]] = field(
        default_factory=dict
    )
    optional: Mapping[str, str] = field(default_factory=dict)
    masters: bool = False
    unit_offset: bool = False
    tied: bool = False
    ignored_suffixes: tuple[str, ...] = field(default=(".rotary_emb.inv_freq",))


@dataclass(frozen=True)
class TernaryWeight:
    """A canonical ternary matrix (N, K) and the stored tensor that it is made from.

    Attributes:
        name: Canonical name.
        stored: Name of the stored weight.
        form: ``packed`` (U8, four rows a byte), ``unpacked`` (float in -1 0 1), ``trits`` (with
            scales, from the source), ``scaled`` (float, ternary times its scales) or ``master``.
        scale: Name of the stored scale; None for masters, trits and scaled.
        scale_dtype: Of the canonical scales.
    """

    name: str
    stored: str
    n: int
    k: int
    form: str
    scale: str | None
    scale_dtype: str = "F32"


@dataclass(frozen=True)
class ModelPlan:
    """All that the canonical weights are made from.

    Attributes:
        spec: The decoder's spec.
        dialect: How the projections are stored.
        ternary: The projections, in the order of the layers.
        floats: Canonical to stored name of the float tensors that are taken as they are; no head
            among them.
        head: Stored name of the head: ``lm_head.weight``, or the embedding when tied.
        offset: Canonical names of the gains to which 1 is added.
    """

    spec: dict[str, Any]
    dialect: Dialect
    ternary: tuple[TernaryWeight, ...]
    floats: Mapping[str, str]
    head: str
    offset: frozenset[str] = frozenset()


def make_plan(
    family: Family, config: ModelConfig, source: TensorSource, ternarize: str | None
) -> ModelPlan:
    """Check the stored tensors against the config and say what becomes of each.

    Args:
        family: Of the config.
        config: Of the checkpoint.
        source: Its tensors.
        ternarize: ``absmean``: full-precision weights are made ternary.

    Raises:
        ConfigError: ``quantization_config`` declares what is not supported.
        CheckpointError: a tensor is missing, unexpected, or of the wrong shape or dtype.
    """
    names = canonical_names(source.tensors)
    if HEAD not in names and (family.tied or _is_encoder(config, names)):
        config = replace(config, tie_word_embeddings=True)
    modules = [name.removesuffix(".weight") for name in ternary_shapes(make_spec(config))]
    masters = family.masters or FIRST_PROJECTION_NORM in names
    dialect = _dialect(masters, config, modules, ternarize)
    if any(f"{module}.weight_scale" in names for module in modules):
        _refuse_undeclared(dialect, source)
    elif all(_is_float(source, names.get(f"{module}.weight")) for module in modules):
        dialect = replace(dialect, scaled=not dialect.online)
    spec = make_spec(config, **_traits(family, config, dialect, names))
    if source.scale_group_size is not None:  # such models were not trained with int8 activations
        spec |= {"scale_group_size": source.scale_group_size, "activation_levels": FLOAT_LEVELS}
    shapes = ternary_shapes(spec)
    floats = float_shapes(spec)
    head = EMBEDDING if spec["tie_word_embeddings"] else HEAD
    dense = {**floats, head: (spec["vocab_size"], spec["hidden_size"])}
    scales = {
        name: f"{name}_scale"
        for name in shapes
        if not (dialect.online or dialect.scaled or _holds_scale(source, names.get(name)))
    }

    _refuse_other_kinds(source, names, shapes, scales)
    needed = [*dense, *shapes, *scales.values()]
    _check_names(source, names, needed, {HEAD, *needed}, family.ignored_suffixes)
    for name, shape in dense.items():
        _check(source, names[name], FLOAT_DTYPES, (shape,))
    for name in scales.values():
        _check(source, names[name], FLOAT_DTYPES, ((), (1,)))
    ternary = tuple(
        TernaryWeight(
            name,
            names[name],
            n,
            k,
            _form(source, names[name], n, k, dialect),
            names[scales[name]] if name in scales else None,
            _scale_dtype(source, names[name], spec),
        )
        for name, (n, k) in shapes.items()
    )
    if dialect.scaled:
        spec, ternary = _find_scales(source, config, spec, ternary)
    return ModelPlan(
        spec,
        dialect,
        ternary,
        {name: names[name] for name in floats},
        names[head],
        frozenset(filter(is_gain, floats) if family.unit_offset else ()),
    )


def _is_encoder(config: ModelConfig, names: Mapping[str, str]) -> bool:
    """Whether it is a model without a head, by its architecture or by names without a prefix."""
    named = bool(config.architectures) and config.architectures[0].endswith("Model")
    return named or names.get(EMBEDDING) == EMBEDDING.removeprefix("model.")


def _dialect(
    masters: bool, config: ModelConfig, modules: list[str], ternarize: str | None
) -> Dialect:
    declared = config.quantization_config
    if ternarize is None and not (masters and declared is None):
        return read_dialect(declared, modules, "config.json")
    if ternarize is not None and (masters or declared is not None):
        raise ConfigError(
            "config.json: expected full-precision weights, which ternarize is for, got those of a"
            " ternary model: convert it without"
        )
    check_bits(config.weight_bits, config.input_bits, "config.json")
    return Dialect(online=True, divides=False)


def _traits(
    family: Family, config: ModelConfig, dialect: Dialect, names: Mapping[str, str]
) -> dict[str, Any]:
    """What the family, the dialect and the tensors that are there say of the spec."""
    traits = dict(family.traits(config) if callable(family.traits) else family.traits)
    for trait, tensor in family.optional.items():
        traits[trait] = f"model.layers.0.{tensor}" in names
    if dialect.norm_eps is not None or FIRST_PROJECTION_NORM in names:
        traits["projection_norm"] = "rms_norm"
        traits["projection_norm_eps"] = dialect.norm_eps or config.rms_norm_eps
    return traits


def _scale_dtype(source: TensorSource, stored: str, spec: Mapping[str, Any]) -> str:
    """Scales of groups stay as they are stored."""
    if not _holds_scale(source, stored) or spec["scale_group_size"] is None:
        return "F32"
    return str(source.tensors[stored].scale_dtype)


def _refuse_undeclared(dialect: Dialect, source: TensorSource) -> None:
    if dialect.scaled:
        raise ConfigError(
            "config.json: quantization_config: expected one with quant_method bitnet, as there are"
            f" weight scales in {source.path}, got none: it alone tells whether they multiply or"
            " divide, take config.json from the same source"
        )


def _is_float(source: TensorSource, stored: str | None) -> bool:
    return stored is not None and source.tensors[stored].dtype in FLOAT_DTYPES


def _find_scales(
    source: TensorSource,
    config: ModelConfig,
    spec: dict[str, Any],
    ternary: tuple[TernaryWeight, ...],
) -> tuple[dict[str, Any], tuple[TernaryWeight, ...]]:
    """Spec and matrices of floats that are ternary, with the layout of their scales."""
    layout = scale_layout(source, [(w.stored, w.n, w.k) for w in ternary])
    levels = {} if config.quantization_config else {"activation_levels": FLOAT_LEVELS}
    if layout:
        ternary = tuple(replace(w, scale_dtype=source.tensors[w.stored].dtype) for w in ternary)
    return {**spec, **layout, **levels}, ternary


def _holds_scale(source: TensorSource, stored: str | None) -> bool:
    return stored is not None and source.tensors[stored].dtype == TRITS


def _form(source: TensorSource, name: str, n: int, k: int, dialect: Dialect) -> str:
    """The form that the stored dtype shows, its shape checked."""
    info = source.tensors[name]
    if dialect.scaled:
        _check(source, name, FLOAT_DTYPES, ((n, k),))
        return "scaled"
    if info.dtype == TRITS and not dialect.online:
        _check(source, name, (TRITS,), ((n, k),))
        return "trits"
    if info.dtype == "U8" and not dialect.online:
        _check(source, name, ("U8",), ((-(-n // 4), k),))
        return "packed"
    _check(source, name, FLOAT_DTYPES if dialect.online else ("U8", *FLOAT_DTYPES), ((n, k),))
    return "master" if dialect.online else "unpacked"


def _check(
    source: TensorSource,
    name: str,
    dtypes: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
    mend: str = _WRONG_CONFIG,
) -> None:
    info = source.tensors[name]
    if info.dtype not in dtypes or info.shape not in shapes:
        wanted = f"{' or '.join(dtypes)} {describe_shape(shapes[-1])}"
        raise CheckpointError(
            f"{shown(name)}: expected {wanted}, got {info} in {source.path_of(name)}: {mend}"
        )


def _refuse_other_kinds(
    source: TensorSource,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, int]],
    scales: Mapping[str, str],
) -> None:
    """Name what is ternary and should not be, or the reverse, before its scale is one too many."""
    for name in (EMBEDDING, HEAD):
        stored = names.get(name)
        if stored is not None and f"{name}_scale" in names:
            raise CheckpointError(
                f"{stored}: expected {' or '.join(FLOAT_DTYPES)} and no scale, got"
                f" {source.tensors[stored]} and a scale in {source.path_of(stored)}: only the"
                " projections of the layers can be ternary"
            )
    for name, scale in scales.items():
        stored = names.get(name)
        if stored is not None and scale not in names and source.tensors[stored].dtype != "U8":
            n, k = shapes[name]
            raise CheckpointError(
                f"{stored}: expected U8 {describe_shape((-(-n // 4), k))} and a weight_scale, got"
                f" {source.tensors[stored]} alone in {source.path_of(stored)}: all seven"
                " projections of each layer have to be ternary"
            )


def _check_names(
    source: TensorSource,
    names: Mapping[str, str],
    needed: list[str],
    allowed: set[str],
    ignored: tuple[str, ...],
) -> None:
    missing = [name for name in needed if name not in names]
    extra = [
        stored
        for name, stored in names.items()
        if name not in allowed and not name.endswith(ignored)
    ]
    for wrong, text in (
        (missing, "tensors that the config calls for are missing"),
        (extra, "tensors that the config does not call for are there"),
    ):
        if wrong:
            listed = ", ".join(shown(name) for name in wrong[:_SHOWN_NAMES])
            more = f" and {len(wrong) - _SHOWN_NAMES} more" if len(wrong) > _SHOWN_NAMES else ""
            raise CheckpointError(f"{source.path}: {text}: {listed}{more}: {_WRONG_CONFIG}")
