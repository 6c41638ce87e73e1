"""Write the ablation of docs/distillation.md from its newest record; ``make docs`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from marked import rewrite
from numpy.typing import NDArray
from tables_md import table

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "distillation.md"

Lines = list[dict[str, Any]]


def newest(records: Path = HERE / "records") -> Lines:
    """The newest record; empty where there is none."""
    files = [json.loads(path.read_text()) for path in (records / "studies").glob("*-distill.json")]
    return max(files, key=lambda lines: lines[0]["date"], default=[])


def part(lines: Lines) -> str:
    """What was measured and the table, a row for each way to a student."""
    about, *runs = lines
    right: dict[str, list[NDArray[np.float64]]] = {}
    for run in runs:
        right.setdefault(run["row"], []).append(np.array([*run["right"]], np.float64))
    first = np.mean(next(iter(right.values())), axis=0)  # (passages,): of the teacher's kind
    rows: list[list[str | float | None]] = []
    for name, seeds in right.items():
        share = np.mean(seeds, axis=0)
        each = ", ".join(f"{100 * seed.mean():.1f}" for seed in seeds)
        cells = [f"{100 * share.mean():.1f} % {_error(share)}", each]
        gap = share - first
        to_first = f"{100 * gap.mean():+.1f} {_error(gap)}" if rows else "-"
        rows.append([name, *cells, to_first])
    spread = np.sqrt(np.mean([np.var(np.mean(each, axis=1), ddof=1) for each in right.values()]))
    heading = ["fine-tuned", "accuracy", "of each seed", "to full precision"]
    seeds_differ = (
        "± is the standard error of a mean over the passages alone. Seeds differ by more: the"
        f" standard deviation of a row's accuracy is {100 * spread:.1f} points."
    )
    return f"{_where(about, runs)}\n\n{table(heading, rows)}\n\n{seeds_differ}"


def _error(values: NDArray[np.float64]) -> str:
    """Standard error of a mean over passages, which are taken as drawn at random."""
    return f"± {100 * values.std(ddof=1) / len(values) ** 0.5:.1f}"


def _where(about: dict[str, Any], runs: Lines) -> str:
    task, tune, compared = about["task"], about["tune"], [r for r in runs if "as_torch" in r]
    base, warm = about["base"], about["warm"]
    same, both = (sum(run[name] for run in compared) for name in ("as_torch", "compared"))
    return (
        f"{about['parameters'] / 1e6:.1f} M parameters; the base learned {base['tokens'] / 1e6:.2f}"
        f" M tokens (validation loss {base['validation']:.2f}), stage 2"
        f" {warm['tokens'] / 1e6:.2f} M ({warm['validation']:.2f}). {tune['steps']} steps of"
        f" {tune['batch_size']} of {3 * task['per_label']:,} passages of {task['words']} words;"
        f" {about['passages']:,} are held out. {about['cpu']}, {about['date'][:10]}, commit"
        f" {about['commit']}. Torch agrees with the engine on {same:,} of"
        f" {both:,} answers of ternary models."
    )


def main() -> None:
    """Rewrite the page; nothing where there is no record."""
    if lines := newest():
        rewrite(PAGE, {"ablation": part(lines)})


if __name__ == "__main__":
    main()
