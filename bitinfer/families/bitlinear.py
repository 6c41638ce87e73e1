"""The BitLinear dialects of Hugging Face checkpoints: what is stored for a ternary projection.

    linear_class    mode      stored weight                     stored scale   effective weight
    autobitlinear   offline   U8 (N/4, K), or float in -1 0 1   weight_scale   t * weight_scale
    autobitlinear   online    float (N, K) master               none           its absmean form
    (none)                    float t * scale                   none           itself
    (1bitLLM)       online    float (N, K) master               none           its absmean form
    bitlinear       (any)     U8 (N/4, K), or float in -1 0 1   weight_scale   t / weight_scale
    binary          (none)    float (N, K) master               none           its binary form

``bitlinear`` is what an absent ``linear_class`` means. The same bytes under the same name multiply
in one and divide in the other; here, and nowhere else, the second is mended.
Source: transformers, src/transformers/integrations/bitnet.py and utils/quantization_config.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.families import binary
from bitinfer.json_file import shown

_KNOWN_KEYS = {
    *("quant_method", "linear_class", "quantization_mode", "use_rms_norm", "rms_norm_eps"),
    "modules_to_not_convert",
}
_BINARY_KEYS = {
    *("quant_method", "linear_class", "num_groups", "layer_norm_eps", "modules_to_not_convert")
}
_MOST_GROUPS = 1 << 10
_DEFAULT_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Dialect:
    """How a checkpoint stores its ternary projections.

    Attributes:
        online: Master weights, to be ternarized by absmean, or made binary; else ternary values
            with a scale.
        divides: The stored scale divides; else it multiplies.
        scaled: No scales are stored: the weights are floats that they have been multiplied with.
        norm_eps: Each projection has a norm of its own, of this eps; None: not declared.
        binary_groups: Groups of columns of a binary BitNet's matrices; None: weights are ternary.
    """

    online: bool
    divides: bool
    norm_eps: float | None = None
    scaled: bool = False
    binary_groups: int | None = None


def read_dialect(
    quantization: Mapping[str, Any] | None, projections: Iterable[str], where: str
) -> Dialect:
    """The dialect that ``quantization_config`` declares.

    Args:
        quantization: config.json's ``quantization_config``.
        projections: Module names that must be ternary.
        where: Name of the config, for messages.

    Raises:
        ConfigError: another method, an unknown value, or an option that
            leaves a projection dense.
    """
    where = f"{where}: quantization_config"
    if quantization is None:
        return Dialect(online=False, divides=False, scaled=True)
    _expect(where, quantization, "quant_method", ("bitnet",))
    linear_class = _expect(
        where, quantization, "linear_class", ("bitlinear", "autobitlinear", binary.LINEAR_CLASS)
    )
    if linear_class == binary.LINEAR_CLASS:
        return _read_binary(quantization, projections, where)
    mode = _expect(where, quantization, "quantization_mode", ("offline", "online"))
    _check_keys(quantization, _KNOWN_KEYS, where)
    online = linear_class == "autobitlinear" and mode == "online"
    _check_exclusions(quantization.get("modules_to_not_convert"), projections, online, where)
    return Dialect(online, linear_class == "bitlinear", _norm_eps(quantization, where))


def _read_binary(
    quantization: Mapping[str, Any], projections: Iterable[str], where: str
) -> Dialect:
    _check_keys(quantization, _BINARY_KEYS, where)
    groups = quantization.get("num_groups", 1)
    if type(groups) is not int or not 1 <= groups <= _MOST_GROUPS:
        raise ConfigError(
            f"{where}: num_groups: expected a whole number from 1 to {_MOST_GROUPS}, got"
            f" {shown(repr(groups))}"
        )
    _check_exclusions(quantization.get("modules_to_not_convert"), projections, True, where)
    eps = _eps(quantization, "layer_norm_eps", binary.DEFAULT_NORM_EPS, where)
    return Dialect(online=True, divides=False, norm_eps=eps, binary_groups=groups)


def _check_keys(quantization: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in quantization:
        if name not in known:
            raise ConfigError(f"{where}: {shown(name)}: expected no such key for bitnet")


def check_bits(weight_bits: int | None, input_bits: int | None, where: str) -> None:
    """Refuse what 1bitLLM's keys of config.json may say of other models than theirs.

    Raises:
        ConfigError: weights are not ternary ("1 bit") or activations not int8.
    """
    for name, got, wanted in (("weight_bits", weight_bits, 1), ("input_bits", input_bits, 8)):
        if got not in (None, wanted):
            raise ConfigError(f"{where}: {name}: expected {wanted}, got {got}: it is not supported")


def effective_scale(stored: np.float32, dialect: Dialect, where: str) -> np.float32:
    """The factor that multiplies the ternary values, float32; a reciprocal is rounded once.

    Raises:
        CheckpointError: ``stored`` or its reciprocal is NaN, infinite, zero or negative.
    """
    with np.errstate(all="ignore"):
        scale = np.float32(1.0) / stored if dialect.divides else stored
    if not (np.isfinite(stored) and stored > 0 and np.isfinite(scale) and scale > 0):
        raise CheckpointError(
            f"{where}: expected a finite scale above 0, got {stored!s}: the file is"
            " damaged, download it again"
        )
    return np.float32(scale)


def _norm_eps(quantization: Mapping[str, Any], where: str) -> float | None:
    if not _expect(where, quantization, "use_rms_norm", (False, True)):
        return None
    return _eps(quantization, "rms_norm_eps", _DEFAULT_NORM_EPS, where)


def _eps(quantization: Mapping[str, Any], name: str, default: float, where: str) -> float:
    eps = quantization.get(name, default)
    if type(eps) not in (int, float) or not 0 < eps < 1:
        raise ConfigError(
            f"{where}: {name}: expected a number between 0 and 1, got {shown(repr(eps))}"
        )
    return float(eps)


def _expect(
    where: str, quantization: Mapping[str, Any], name: str, choices: tuple[object, ...]
) -> object:
    """The value of a key, one of ``choices``; absent or null is the first of them."""
    value = quantization.get(name)
    value = choices[0] if value is None and name != "quant_method" else value
    if value not in choices or type(value) is not type(choices[0]):
        expected = " or ".join(map(str, choices))
        raise ConfigError(
            f"{where}: {name}: expected {expected}, got {shown(repr(value))}: no other way of"
            " quantizing is supported"
        )
    return value


def _check_exclusions(
    patterns: object, projections: Iterable[str], online: bool, where: str
) -> None:
    """Refuse a list that leaves projections dense, or that makes the head ternary."""
    if patterns is None:
        return
    where = f"{where}: modules_to_not_convert"
    plain = isinstance(patterns, list) and all(isinstance(p, str) and p for p in patterns)
    if not plain:
        raise ConfigError(f"{where}: expected a list of module names, got {shown(patterns)}")
    assert isinstance(patterns, list)
    for pattern in patterns:
        if not pattern.replace(".", "").replace("_", "").isalnum():
            raise ConfigError(f"{where}: expected a plain module name, got {shown(pattern)}")
        for module in projections:
            if _excludes(pattern, module):
                raise ConfigError(
                    f"{where}: {shown(pattern)}: expected all seven projections of each layer to be"
                    f" ternary, got {module} left dense"
                )
    # Packed files show by their dtypes that the head is dense; of masters only this list tells.
    if online and not any(_excludes(pattern, "lm_head") for pattern in patterns):
        raise ConfigError(f"{where}: expected lm_head among them, a ternary head is not supported")


def _excludes(pattern: str, module: str) -> bool:
    """Match as transformers does: a regular expression at the start, or a suffix."""
    starts = len(pattern) <= len(module) and all(
        p in (".", m) for p, m in zip(pattern, module, strict=False)
    )
    return starts or module.endswith(pattern)
