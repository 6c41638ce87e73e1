"""``ModelPlan``: which stored tensor becomes which canonical weight, checked name by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bitinfer.config import ModelConfig
from bitinfer.errors import ConfigError
from bitinfer.families.binary import traits as binary_traits
from bitinfer.families.bitlinear import Dialect, check_bits, read_dialect
from bitinfer.families.names import FIRST_PROJECTION_NORM, canonical_names, is_gain
from bitinfer.families.scaled import FLOAT_LEVELS, is_scaled, scale_layout, without_zeros
from bitinfer.families.spec import EMBEDDING, HEAD, float_shapes, make_spec, ternary_shapes
from bitinfer.families.stored import (
    FLOAT_DTYPES,
    check_groups,
    check_names,
    check_stored,
    refuse_other_kinds,
)
from bitinfer.formats.source import TRITS, TensorSource

_NOT_DENSE = (
    "expected full-precision weights, which ternarize is for, got those of a ternary model:"
    " convert it without"
)


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
            scales, from the source), ``scaled`` (float, ternary times its scales), ``master``
            or ``binary`` (a master of weights without 0).
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
        binary: No weight is 0, so that one bit holds it.
    """

    spec: dict[str, Any]
    dialect: Dialect
    ternary: tuple[TernaryWeight, ...]
    floats: Mapping[str, str]
    head: str
    offset: frozenset[str] = frozenset()
    binary: bool = False


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
    dialect = _dialect(family, config, source, names, ternarize)
    spec = make_spec(config, **_traits(family, config, dialect, names))
    spec |= source.scale_groups
    if source.float_activations:
        spec |= {"activation_levels": FLOAT_LEVELS}
    shapes = ternary_shapes(spec)
    floats = float_shapes(spec)
    head = EMBEDDING if spec["tie_word_embeddings"] else HEAD
    dense = {**floats, head: (spec["vocab_size"], spec["hidden_size"])}
    scales = {
        name: f"{name}_scale"
        for name in shapes
        if not (dialect.online or dialect.scaled or _holds_scale(source, names.get(name)))
    }

    check_groups(dialect.binary_groups, shapes)
    refuse_other_kinds(source, names, shapes, scales)
    needed = [*dense, *shapes, *scales.values()]
    check_names(source, names, needed, {HEAD, *needed}, family.ignored_suffixes)
    for name, shape in dense.items():
        check_stored(source, names[name], FLOAT_DTYPES, (shape,))
    for name in scales.values():
        check_stored(source, names[name], FLOAT_DTYPES, ((), (1,)))
    plan = ModelPlan(
        spec,
        dialect,
        tuple(
            TernaryWeight(
                name,
                names[name],
                n,
                k,
                _form(source, names[name], n, k, dialect),
                names[scales[name]] if name in scales else None,
                _scale_dtype(source, names[name]),
            )
            for name, (n, k) in shapes.items()
        ),
        {name: names[name] for name in floats},
        names[head],
        frozenset(filter(is_gain, floats) if family.unit_offset else ()),
        dialect.binary_groups is not None or source.is_binary,
    )
    matrices = [(w.stored, w.n, w.k) for w in plan.ternary]
    if ternarize is not None and is_scaled(source, matrices):
        raise ConfigError(f"{source.path}: {_NOT_DENSE}")
    return _with_found_scales(plan, config, source) if dialect.scaled else plan


def _with_found_scales(plan: ModelPlan, config: ModelConfig, source: TensorSource) -> ModelPlan:
    """The plan of floats that are ternary times scales, once it is found which scales."""
    matrices = [(w.stored, w.n, w.k) for w in plan.ternary]
    layout = scale_layout(source, matrices)
    levels = {} if config.quantization_config else {"activation_levels": FLOAT_LEVELS}
    ternary = plan.ternary
    if layout:  # the scales stay as they are stored
        ternary = tuple(replace(w, scale_dtype=source.tensors[w.stored].dtype) for w in ternary)
    return replace(
        plan,
        spec={**plan.spec, **layout, **levels},
        ternary=ternary,
        binary=without_zeros(source, matrices),
    )


def _is_encoder(config: ModelConfig, names: Mapping[str, str]) -> bool:
    """Whether it is a model without a head, by its architecture or by names without a prefix."""
    named = bool(config.architectures) and config.architectures[0].endswith("Model")
    return named or names.get(EMBEDDING) == EMBEDDING.removeprefix("model.")


def _dialect(
    family: Family,
    config: ModelConfig,
    source: TensorSource,
    names: Mapping[str, str],
    ternarize: str | None,
) -> Dialect:
    """What the config declares, or what the tensors show where it says nothing."""
    modules = [name.removesuffix(".weight") for name in ternary_shapes(make_spec(config))]
    masters = family.masters or FIRST_PROJECTION_NORM in names
    dialect = _declared_dialect(masters, config, modules, ternarize)
    if any(f"{module}.weight_scale" in names for module in modules):
        _refuse_undeclared(dialect, source)
    elif all(_is_float(source, names.get(f"{module}.weight")) for module in modules):
        dialect = replace(dialect, scaled=not dialect.online)
    return dialect


def _declared_dialect(
    masters: bool, config: ModelConfig, modules: list[str], ternarize: str | None
) -> Dialect:
    declared = config.quantization_config
    if ternarize is None and not (masters and declared is None):
        return read_dialect(declared, modules, "config.json")
    if ternarize is not None and (masters or declared is not None):
        raise ConfigError(f"config.json: {_NOT_DENSE}")
    check_bits(config.weight_bits, config.input_bits, "config.json")
    return Dialect(online=True, divides=False)


def _traits(
    family: Family, config: ModelConfig, dialect: Dialect, names: Mapping[str, str]
) -> dict[str, Any]:
    """What the family, the dialect and the tensors that are there say of the spec."""
    traits = dict(family.traits(config) if callable(family.traits) else family.traits)
    for trait, tensor in family.optional.items():
        traits[trait] = f"model.layers.0.{tensor}" in names
    if dialect.binary_groups is not None and dialect.norm_eps is not None:
        return traits | binary_traits(dialect.binary_groups, dialect.norm_eps)
    if dialect.norm_eps is not None or FIRST_PROJECTION_NORM in names:
        traits["projection_norm"] = "rms_norm"
        traits["projection_norm_eps"] = dialect.norm_eps or config.rms_norm_eps
    return traits


def _scale_dtype(source: TensorSource, stored: str) -> str:
    """Scales of groups stay as they are stored."""
    if not (_holds_scale(source, stored) and source.scale_groups):
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


def _holds_scale(source: TensorSource, stored: str | None) -> bool:
    return stored is not None and source.tensors[stored].dtype == TRITS


def _form(source: TensorSource, name: str, n: int, k: int, dialect: Dialect) -> str:
    """The form that the stored dtype shows, its shape checked."""
    info = source.tensors[name]
    if dialect.scaled:
        check_stored(source, name, FLOAT_DTYPES, ((n, k),))
        return "scaled"
    if info.dtype == TRITS and not dialect.online:
        check_stored(source, name, (TRITS,), ((n, k),))
        return "trits"
    if info.dtype == "U8" and not dialect.online:
        check_stored(source, name, ("U8",), ((-(-n // 4), k),))
        return "packed"
    check_stored(source, name, FLOAT_DTYPES if dialect.online else ("U8", *FLOAT_DTYPES), ((n, k),))
    if dialect.online:
        return "master" if dialect.binary_groups is None else "binary"
    return "unpacked"
