"""The training studies: which runs are compared in each (docs/training-studies.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RATES: dict[str, dict[str, Any]] = {  # by the peak of the learning rate
    "1.5e-3": {"learning_rate": 1.5e-3, "learning_rate_2": 1e-3},
    "4.5e-3": {"learning_rate": 4.5e-3, "learning_rate_2": 3e-3},
    "1.35e-2": {"learning_rate": 1.35e-2, "learning_rate_2": 9e-3},
}
# What all runs share: the embedded model's text and tokenizer, 0.8 million tokens.
COMMON: dict[str, Any] = {
    **_RATES["4.5e-3"],
    "context_length": 256,
    "batch_size": 4,
    "steps": 800,
    "warmup_steps": 80,
    "validate_every": 200,
    "save_every": 200,
    "compile": True,
    "seed": 1,
}
_HEADS = {"num_key_value_heads": 1, "head_dim": 64}
SIZES: dict[str, dict[str, Any]] = {  # by weights in projections, roughly
    "0.1M": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
    | {"num_attention_heads": 1, **_HEADS},
    "0.5M": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3}
    | {"num_attention_heads": 2, **_HEADS},
    "2.2M": {"hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 5}
    | {"num_attention_heads": 3, **_HEADS},
}
STUDIED = SIZES["0.5M"]
LLAMA = {**STUDIED, "model_type": "llama", "hidden_act": "relu2"}  # the one without sub-norms
LINEARS = ("full", "bitnet", "binary")


@dataclass(frozen=True)
class Study:
    """Runs that differ in what is asked.

    Attributes:
        title: Of its section in the page.
        runs: Name of a run -> what differs from `COMMON` in its config.
    """

    title: str
    runs: Mapping[str, Mapping[str, Any]]


STUDIES: dict[str, Study] = {
    "sizes": Study(
        "Full precision, ternary and binary by size",
        {
            f"{linear} {size}": {"linear": linear, "shape": shape}
            for size, shape in SIZES.items()
            for linear in LINEARS
        },
    ),
    "rates": Study(
        "The peak of the learning rate",
        {
            f"{linear}, {name}": {"linear": linear, "shape": STUDIED, **peak}
            for linear in LINEARS
            for name, peak in _RATES.items()
        },
    ),
    "thresholds": Study(
        "Where a weight becomes zero",
        {f"{t:g} × absmean": {"threshold": t, "shape": STUDIED} for t in (0.0, 0.25, 0.5, 0.75, 1)},
    ),
    "sub-norms": Study(
        "SubLN and the learning rate",
        {
            f"{'with' if norm else 'without'} SubLN, {name}": {
                "shape": LLAMA,
                "sub_norm": norm,
                **_RATES[name],
            }
            for norm in (True, False)
            for name in ("1.5e-3", "4.5e-3")
        },
    ),
    "groups": Study(
        "Groups of columns of a binary model",
        {
            f"{groups} group{'s' * (groups > 1)}": {
                "linear": "binary",
                "num_groups": groups,
                "shape": STUDIED,
            }
            for groups in (1, 2, 4)
        },
    ),
    "seeds": Study(
        "What another seed changes",
        {
            f"{linear}, seed {seed}": {"linear": linear, "seed": seed, "shape": STUDIED}
            for seed in (1, 2, 3)
            for linear in LINEARS
        },
    ),
    "when": Study(
        "When to become ternary",
        {
            "from the start": {"ternary_from": 0.0, "shape": STUDIED},
            "in the last 20 %": {"ternary_from": 0.8, "shape": STUDIED},
            "after training": {"ternary_from": 1.0, "shape": STUDIED},
        },
    ),
}
