"""All that decides what a distillation gives. Torch is not imported here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bitinfer.errors import ConfigError
from bitinfer.json_file import read_json_object
from bitinfer.train.config import TrainConfig

CONFIG_NAME = "distill.json"
# What the command line begins with; a student has much to keep and less to learn than a new model.
_DEFAULTS: dict[str, Any] = {"stage_2_from": 1.0, "batch_size": 8, "context_length": 256}
FINETUNE_DEFAULTS = {**_DEFAULTS, "steps": 500, "learning_rate": 2e-4, "warmup_steps": 20}
PRETRAIN_DEFAULTS = {**_DEFAULTS, "steps": 2000, "learning_rate": 1e-3, "warmup_steps": 100}


def _number(default: Any, text: str, low: float, high: float = math.inf) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What counts how much in stage 3; see `distill_loss`."""

    cross_entropy: float = _number(1.0, "Weight of the labels; 0 leaves them out", 0)
    logits: float = _number(10.0, "Weight of the teacher's next-token distribution", 0)
    relation: float = _number(1.0, "Weight of the teacher's attention relations", 0)
    temperature: float = _number(5.0, "Of both next-token distributions", 1e-3)
    layer: int = _number(-1, "Whose relations count; -1 is the last", -1 << 16, 1 << 16)
    relation_heads: int | None = _number(
        None, "Parts of queries, keys and values [default: the key-value heads]", 1, 1 << 16
    )

    def __post_init__(self) -> None:
        """Check each field.

        Raises:
            ConfigError: one is of another kind or out of bounds, or all weights are 0.
        """
        for entry in fields(self):
            value, about = getattr(self, entry.name), entry.metadata
            low, high = about["low"], about["high"]
            if value is None and entry.default is None:
                continue
            kinds = (int,) if str(entry.type).startswith("int") else (int, float)
            right = isinstance(value, kinds) and not isinstance(value, bool)
            if not right or not low <= value <= high or math.isinf(value):
                bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
                raise ConfigError(f"{entry.name}: expected a number {bounds}, got {value!r}")
        if not (self.cross_entropy or self.logits or self.relation):
            raise ConfigError("weights: expected one above 0, got none: nothing would be learned")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A distillation.

    Attributes:
        teacher: Folder or GGUF file of a Llama or Qwen3 model of full precision.
        finetune: Stage 3. Its ``data`` is one file of examples (``.jsonl``), or texts. Its
            ``linear``, ``sub_norm``, ``num_groups`` and ``threshold`` make the student of the
            teacher (stage 1), unless ``start`` is the folder of another, saved as masters.
        pretrain: Stage 2, whose ``data`` are texts; None leaves it out.
        weights: What counts how much in stage 3.
    """

    teacher: str
    finetune: TrainConfig
    pretrain: TrainConfig | None = None
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        """Refuse settings of the stages that have no meaning here.

        Raises:
            ConfigError: there is one.
        """
        for name, stage in (("finetune", self.finetune), ("pretrain", self.pretrain)):
            if stage is None:
                continue
            if stage.tokenizer is not None or stage.shape or stage.ternary_from:
                raise ConfigError(
                    f"{name}: expected no tokenizer, shape or ternary_from: the teacher gives the"
                    " first two, and the student is ternary from the first step"
                )
            if not stage.data:
                raise ConfigError(f"{name}: data: expected a file or more to train on, got none")
        if self.pretrain is not None and self.pretrain.start is not None:
            raise ConfigError("pretrain: start: expected none: name it in finetune")

    def to_json(self) -> str:
        """All fields, as ``from_mapping`` reads them."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_file(cls, path: Path) -> DistillConfig:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: it is damaged.
        """
        values: Mapping[str, Any] = read_json_object(path, ConfigError)
        try:
            stages: dict[str, Any] = {
                name: None if values[name] is None else TrainConfig.from_mapping(values[name], name)
                for name in ("finetune", "pretrain")
            }
            return cls(
                teacher=values["teacher"], weights=LossWeights(**values["weights"]), **stages
            )
        except (KeyError, TypeError, ValueError) as cause:
            raise ConfigError(f"{path}: expected a distillation's config, got {cause}") from None
