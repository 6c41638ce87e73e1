"""All that decides what a training run gives: one frozen dataclass, for Python, TOML and flags.

Torch is not imported here, so that ``--help`` and the checks are quick.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bitinfer.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


TASK_SUFFIX = ".jsonl"  # of a file of examples
_TASK = re.compile(re.escape(TASK_SUFFIX) + r"(:\d+)?$")  # with a count, which it must not have


def _number(default: Any, text: str, low: float, high: float) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


def _choice(default: Any, text: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


def _other(text: str, **default: Any) -> Any:
    return field(**default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run. Two runs of equal configs on equal data give equal losses (one device, same versions).

    Fields carry their help and bounds in their metadata; the command line has a flag for each.
    """

    data: tuple[str, ...] = _other(
        "Text files; FILE:3 counts each of its documents three times. Or one file of examples",
        default=(),
    )
    validation: tuple[str, ...] = _other("Text file to measure on, not to train on", default=())
    tokenizer: str | None = _other(
        "Folder with tokenizer.json [default: train one on the data]", default=None
    )
    vocab_size: int = _number(4096, "Tokens of a trained tokenizer", 262, 1 << 20)
    start: str | None = _other("Folder of a model with master weights to go on from", default=None)
    shape: Mapping[str, Any] = _other(
        "What config.json says of the model, over the defaults", default_factory=dict
    )
    linear: str = _choice("bitnet", "Projections", "bitnet", "binary", "full")
    sub_norm: bool = _other("Norms before o_proj and down_proj of ternary layers", default=True)
    num_groups: int = _number(1, "Groups of columns, of binary projections", 1, 1024)
    threshold: float = _number(0.5, "Share of the mean up to which a ternary weight is 0", 0, 10)
    ternary_from: float = _number(0.0, "Share of the steps with full-precision projections", 0, 1)
    context_length: int = _number(512, "Tokens in a row", 2, 1 << 20)
    steps: int = _number(1000, "Steps of the optimizer", 1, 1 << 31)
    batch_size: int = _number(16, "Rows in a step, on all devices together", 1, 1 << 20)
    gradient_accumulation_steps: int = _number(
        1, "Pieces that a device computes its rows in", 1, 1 << 20
    )
    optimizer: str = _choice("adamw", "Of the projections; the rest has AdamW", "adamw", "muon")
    learning_rate: float = _number(1.5e-3, "Peak of stage one", 0, 10)
    learning_rate_2: float = _number(1e-3, "Peak of stage two, where its line would begin", 0, 10)
    weight_decay: float = _number(0.1, "Of stage one", 0, 10)
    weight_decay_2: float = _number(0.0, "Of stage two", 0, 10)
    stage_2_from: float = _number(0.5, "Share of the steps before stage two", 0, 1)
    warmup_steps: int = _number(100, "Steps of linear warm-up", 0, 1 << 31)
    max_grad_norm: float = _number(1.0, "Gradients are clipped to this norm", 1e-9, 1e9)
    seed: int = _number(0, "Of the first weights and of the order of the data", 0, (1 << 63) - 1)
    precision: str = _choice("bf16", "Of products; weights and sums are fp32", "bf16", "fp32")
    compile: bool | None = _other(
        "torch.compile, which takes a minute [default: from 1,000 steps on]", default=None
    )
    validate_every: int = _number(500, "Steps between validations; one is at the end", 1, 1 << 31)
    save_every: int = _number(200, "Steps between checkpoints", 1, 1 << 31)
    form: str = _choice(
        "packed", "Weights that are written at the end; binary ones as masters", "packed", "master"
    )

    def __post_init__(self) -> None:
        """Check each field.

        Raises:
            ConfigError: a field is of another kind, or out of bounds.
        """
        for entry in fields(self):
            _check(entry.name, getattr(self, entry.name), str(entry.type), entry.metadata)
        for name in ("data", "validation"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if any(map(_TASK.search, self.data)) and self.task is None:
            raise ConfigError(
                f"data: expected one {TASK_SUFFIX} file alone, or texts, got {', '.join(self.data)}"
            )

    @property
    def task(self) -> Path | None:
        """The file of examples to learn instead of texts."""
        one = len(self.data) == 1 and self.data[0].endswith(TASK_SUFFIX)
        return Path(self.data[0]) if one else None

    def to_json(self) -> str:
        """All fields, as `from_mapping` reads them."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> TrainConfig:
        """The config of a JSON object or a TOML file.

        Raises:
            ConfigError: an unknown key, or a value that is refused; the message begins with
                ``where``.
        """
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"{where}: {key}: no such setting: expected {', '.join(known)}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None


# What may differ when a run is resumed: no number of it depends on these, or on rounding alone.
FREE_FIELDS = ("gradient_accumulation_steps", "compile", "validate_every", "save_every", "form")


def check_same(kept: TrainConfig, now: TrainConfig, where: Path) -> None:
    """Refuse to resume a run with another config.

    Raises:
        ConfigError: a field that binds differs.
    """
    for entry in fields(TrainConfig):
        before, after = getattr(kept, entry.name), getattr(now, entry.name)
        if before != after and entry.name not in FREE_FIELDS:
            raise ConfigError(
                f"{entry.name}: expected {_shown(before)} as the run in {where} began, got"
                f" {_shown(after)}: resume without it, or begin a new run in another folder"
            )


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; paths in it are relative to its folder.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise ConfigError(f"{path}: expected TOML, got text that is not: {cause}") from None
    for name in ("tokenizer", "start"):
        if isinstance(values.get(name), str):
            values[name] = str(path.parent / values[name])
    for name in ("data", "validation"):
        if isinstance(values.get(name), list):
            values[name] = [str(path.parent / str(file)) for file in values[name]]
    return values


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a text"),
    "bool": ((bool,), "true or false"),
    "str | None": ((str, type(None)), "a text"),
    "bool | None": ((bool, type(None)), "true or false"),
    "tuple[str, ...]": ((list, tuple), "a list of texts"),
    "Mapping[str, Any]": ((Mapping,), "a table"),
}


def _check(name: str, value: Any, kind: str, about: Mapping[str, Any]) -> None:
    kinds, words = _KINDS[kind]
    wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
    if isinstance(value, list | tuple):
        wrong = wrong or not all(isinstance(item, str) for item in value)
    if wrong:
        raise ConfigError(f"{name}: expected {words}, got {_shown(value)}")
    if "choices" in about and value not in about["choices"]:
        raise ConfigError(f"{name}: expected {', '.join(about['choices'])}, got {_shown(value)}")
    if "low" in about and not about["low"] <= value <= about["high"]:
        bounds = f"from {about['low']:g} to {about['high']:g}"
        raise ConfigError(f"{name}: expected {words} {bounds}, got {_shown(value)}")


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
