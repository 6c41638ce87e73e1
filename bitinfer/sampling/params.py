"""``SamplingParams``: the names, defaults, ranges and help of everything that steers sampling.

The command line, ``/set``, the config file and their error messages are made from the metadata of
the fields; docs/sampling.md defines each by its formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from bitinfer.errors import ConfigError

MOST_LOGPROBS = 100  # likeliest tokens that are recorded for each token
DRY_LONGEST = 1000  # tokens of a sequence that DRY counts: the penalty is beyond all logits by then
_MOST_TOKENS = 2**31 - 1
_INFINITY = float("inf")


def _setting(default: Any, kind: str, low: float, high: float, text: str) -> Any:
    """A field with what a caller needs to offer it.

    ``kind`` is "float", "int" or "bias" (token id -> float); ``low`` and ``high`` belong to the
    range (of a bias: of its numbers); ``help`` is a sentence.
    """
    metadata = {"kind": kind, "low": low, "high": high, "help": text}
    if kind == "bias":
        return field(default_factory=dict, hash=False, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen; the one place of the defaults, which change nothing.

    The steps, in this order (formulas in docs/sampling.md): ``logit_bias``, the repetition,
    presence and frequency penalties, DRY; at temperature 0 the largest logit, else ``temperature``,
    ``top_k``, ``typical_p``, ``top_p``, ``min_p``, XTC and a draw. Each field's metadata holds
    ``kind``, ``low``, ``high`` and ``help``.
    """

    temperature: float = _setting(
        0.0, "float", 0, 100, "0: always the likeliest token; higher: the more varied"
    )
    top_k: int = _setting(0, "int", 0, _MOST_TOKENS, "Only the K likeliest tokens; 0: all")
    top_p: float = _setting(
        1.0, "float", 0, 1, "Only the likeliest tokens, up to this sum of probability"
    )
    min_p: float = _setting(
        0.0, "float", 0, 1, "Only tokens with this share of the likeliest one's probability"
    )
    typical_p: float = _setting(
        1.0, "float", 0, 1, "Only the most typical tokens, up to this sum of probability"
    )
    repetition_penalty: float = _setting(
        1.0, "float", 0.1, 10, "Divide the logits of tokens that occurred by this; 1: off"
    )
    repetition_window: int = _setting(
        0, "int", 0, _MOST_TOKENS, "Last tokens that the three penalties look at; 0: all"
    )
    presence_penalty: float = _setting(
        0.0, "float", -2, 2, "Subtract this from tokens that the reply holds already"
    )
    frequency_penalty: float = _setting(
        0.0, "float", -2, 2, "Subtract this once for each time that the reply holds a token"
    )
    dry_multiplier: float = _setting(
        0.0, "float", 0, 100, "Penalty of a token that would repeat a sequence (DRY); 0: off"
    )
    dry_base: float = _setting(
        1.75, "float", 1, 10, "Growth of DRY's penalty with each token of the sequence"
    )
    dry_allowed_length: int = _setting(
        2, "int", 1, DRY_LONGEST, "Longest sequence that DRY lets repeat freely"
    )
    dry_window: int = _setting(0, "int", 0, _MOST_TOKENS, "Last tokens that DRY looks at; 0: all")
    xtc_probability: float = _setting(
        0.0, "float", 0, 1, "Chance of leaving out the top choices (XTC); 0: off"
    )
    xtc_threshold: float = _setting(
        0.1, "float", 0, 1, "Probability from which XTC counts a token as a top choice"
    )
    logit_bias: Mapping[int, float] = _setting(
        None, "bias", -_INFINITY, 100, "Add a number to a token's logit, ID=NUMBER; -inf: never"
    )
    seed: int | None = _setting(
        None, "int", 0, 2**64 - 1, "Repeat the same random choices, on every machine"
    )

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a value is out of its range; the message names both.
        """
        for setting in fields(self):
            check_setting(setting.name, getattr(self, setting.name))
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> SamplingParams:
        """Defaults of a model: what generation_config.json means in transformers.

        ``do_sample`` false or absent is greedy; otherwise temperature and top_p are 1 and top_k is
        50 where the file does not name them. ``repetition_penalty`` holds for both.

        Raises:
            ConfigError: a value is out of range.
        """
        used: dict[str, Any] = {"repetition_penalty": 1.0}
        if config.get("do_sample") is True:
            used |= {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
        used |= {name: config[name] for name in used if config.get(name) is not None}
        try:
            return cls(**used)
        except ValueError as cause:
            raise ConfigError(f"generation_config.json: {cause}") from None

    def with_options(self, **options: Any) -> SamplingParams:
        """A copy with the options that are not None.

        Raises:
            TypeError: an option has no such name.
            ValueError: an option is out of range.
        """
        if unknown := sorted(options.keys() - SETTINGS.keys()):
            known = ", ".join(SETTINGS)
            raise TypeError(f"unknown sampling option {unknown[0]}: known are {known}")
        return replace(self, **{name: v for name, v in options.items() if v is not None})


SETTINGS: Mapping[str, Mapping[str, Any]] = {f.name: f.metadata for f in fields(SamplingParams)}


def setting_from_text(name: str, text: str) -> Any:
    """The value of a setting as somebody types it: "0.7", "40", or "15=-2.5,16=-inf" for a bias.

    Args:
        name: A key of ``SETTINGS``.
        text: What was typed.

    Raises:
        ValueError: it is no such value or out of range; the message names the range.
    """
    kind = SETTINGS[name]["kind"]
    value: Any = text
    try:
        if kind == "bias":
            pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
            value = {int(token_id): float(bias) for token_id, bias in pairs}
        else:
            value = int(text) if kind == "int" else float(text)
    except ValueError:
        pass  # the text itself is out of range, which check_setting says
    check_setting(name, value)
    return value


def check_setting(name: str, value: Any) -> None:
    """Refuse a value of the wrong kind or out of its range.

    Raises:
        ValueError: so it is; the message names the setting, the range and the value.
    """
    low, high = SETTINGS[name]["low"], SETTINGS[name]["high"]
    kind = SETTINGS[name]["kind"]
    if kind == "bias":
        _check_bias(name, value, high)
    elif kind == "int":
        if value is None and name == "seed":
            return
        if not _is_whole(value) or not low <= value <= high:
            raise ValueError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    elif not _is_number(value) or not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")


def _check_bias(name: str, value: Any, high: float) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected pairs of token id and number, got {value!r}")
    for token_id, bias in value.items():
        if not _is_whole(token_id) or token_id < 0:
            raise ValueError(f"{name}: expected token ids from 0 up, got {token_id!r}")
        if not _is_number(bias) or not bias <= high:
            raise ValueError(
                f"{name}: expected a number up to {high:g} or -inf for token {token_id}, "
                f"got {bias!r}"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
