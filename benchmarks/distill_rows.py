"""BitDistill's ablation: which students are compared (docs/distillation.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from study_runs import COMMON, LLAMA

from bitinfer.train import LossWeights

TASK: dict[str, Any] = {"per_label": 2000, "words": 20, "seed": 0}
SEEDS = (1, 2)  # of the order of the examples

# The model that all begin with, of full precision, and what plain text it learns: as the studies.
BASE: dict[str, Any] = {**COMMON, "shape": LLAMA, "linear": "full"}
# Stage 2 (and 1): other text of the same kind, masters for stage 3 to go on from.
WARM: dict[str, Any] = {**COMMON, "steps": 320, "seed": 2, "form": "master"}
# Each fine-tuning.
TUNE: dict[str, Any] = {
    "context_length": 256,
    "batch_size": 16,
    "steps": 100,
    "warmup_steps": 10,
    "stage_2_from": 1.0,
    "learning_rate": 2e-3,
    "save_every": 100,
}


@dataclass(frozen=True)
class Row:
    """A row of the table: how a model is fine-tuned on the task.

    Attributes:
        name: Of the row.
        start: What it begins with: ``base``, ``warm`` (a student after stages 1 and 2) or, only
            with ``weights``, ``teacher``.
        settings: What differs from `TUNE`.
        weights: Of stage 3's losses; None: the labels alone, without a teacher.
    """

    name: str
    start: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: LossWeights | None = None


TEACHER = Row("full precision", "base", {"linear": "full"})  # its first seed teaches
ROWS = (
    TEACHER,
    Row("ternary directly", "base", {"sub_norm": False}),
    Row("+ stage 1 (SubLN)", "base"),
    Row("+ stage 2 (plain text)", "warm"),
    Row("+ stage 3 (teacher)", "warm", weights=LossWeights()),
    Row("stage 3: logits only", "warm", weights=LossWeights(relation=0.0)),
    Row("stage 3: relations only", "warm", weights=LossWeights(logits=0.0)),
    Row("stages 1 and 3, from the teacher's weights", "teacher", weights=LossWeights()),
)
