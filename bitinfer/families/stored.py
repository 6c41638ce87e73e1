"""Are the tensors of a checkpoint there, of the dtypes and shapes that its config calls for?"""

from __future__ import annotations

from collections.abc import Mapping

from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.families.gguf_names import gguf_name
from bitinfer.families.spec import EMBEDDING, HEAD
from bitinfer.formats.safetensors import describe_shape
from bitinfer.formats.source import TRITS, TensorSource
from bitinfer.json_file import shown

FLOAT_DTYPES = ("BF16", "F16", "F32")
_SHOWN_NAMES = 3  # of a list of wrong names


def check_stored(
    source: TensorSource,
    name: str,
    dtypes: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> None:
    """Refuse a stored tensor of another dtype or shape.

    Raises:
        CheckpointError: it is.
    """
    info = source.tensors[name]
    if info.dtype not in dtypes or info.shape not in shapes:
        kinds = " or ".join("a ternary type" if dtype == TRITS else dtype for dtype in dtypes)
        raise CheckpointError(
            f"{shown(name)}: expected {kinds} {describe_shape(shapes[-1])}, got {info} in"
            f" {source.path_of(name)}: {_mend(source)}"
        )


def refuse_other_kinds(
    source: TensorSource,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, int]],
    scales: Mapping[str, str],
) -> None:
    """Name what is ternary and should not be, or the reverse, before its scale is one too many.

    Raises:
        CheckpointError: there is such a tensor.
    """
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


def check_names(
    source: TensorSource,
    names: Mapping[str, str],
    needed: list[str],
    allowed: set[str],
    ignored: tuple[str, ...],
) -> None:
    """Compare the tensors that are there with those that the config calls for.

    Raises:
        CheckpointError: some are missing, or not called for (names the first ones).
    """
    missing = [
        _stored_as(source, name)
        for name in needed
        if name not in names and (not name.endswith("_scale") or name[: -len("_scale")] in names)
    ]
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
            raise CheckpointError(f"{source.path}: {text}: {listed}{more}: {_mend(source)}")


def _stored_as(source: TensorSource, name: str) -> str:
    """A canonical name as the format of ``source`` spells it."""
    return gguf_name(name) if source.path.is_file() else name


def _mend(source: TensorSource) -> str:
    """What may help; a single file holds its own config."""
    if source.path.is_file():
        return "the file is damaged or of another kind of model, get another"
    return "check that config.json belongs to these weights"


def check_groups(groups: int | None, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse a number of groups that does not divide the columns of every matrix.

    Raises:
        ConfigError: one is not divided.
    """
    for n, k in shapes.values():
        if groups is not None and k % groups:
            raise ConfigError(
                f"config.json: quantization_config: num_groups: expected a divisor of {k}, the"
                f" columns of a matrix ({n}, {k}), got {groups}"
            )
