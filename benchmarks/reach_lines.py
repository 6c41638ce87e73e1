"""Records of promises about speed, and what they say: ``reach.py`` makes them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from turns import Run, Turns, ratio


@dataclass(frozen=True)
class Line:
    """A promise: one run is so many times as fast as another.

    Attributes:
        text: What is compared.
        over: Name of the run.
        under: Names of the runs that it is compared to: the fastest of them counts.
        target: What the ratio should be; None: it is only told.
        at_most: The ratio should not exceed the target, rather than reach it.
    """

    text: str
    over: str
    under: tuple[str, ...]
    target: float | None = None
    at_most: bool = False


@dataclass(frozen=True)
class Group:
    """Runs that take turns, and the lines that their ratios are."""

    unit: str
    runs: dict[str, Run]
    lines: list[Line]


def records_of(name: str, group: Group, turns: Turns[str], rounds: int) -> list[dict[str, Any]]:
    """A record for each line of a group whose runs have taken turns."""
    records = []
    for line in group.lines:
        under = max(line.under, key=lambda run: statistics.median(turns.rates[run]))
        found = ratio(turns.rates[line.over], turns.rates[under])
        records.append(
            {
                "group": name,
                "line": line.text,
                "target": line.target,
                "at_most": line.at_most,
                "ratio": found.median,
                "ratio_min": found.least,
                "ratio_max": found.largest,
                "over": line.over,
                "under": under,
                "unit": group.unit,
                "over_runs": turns.rates[line.over],
                "under_runs": turns.rates[under],
                "rounds": rounds,
                "others_cpu_share": turns.others_cpu_share,
            }
        )
    return records


def by_target(record: dict[str, Any]) -> tuple[float, float, float]:
    """Least, median and most of the ratio by its target, above 1 where it is reached."""
    shares = [record[name] / record["target"] for name in ("ratio_min", "ratio", "ratio_max")]
    least, middle, most = [1 / s for s in reversed(shares)] if record["at_most"] else shares
    return least, middle, most


def reached(record: dict[str, Any]) -> bool | None:
    """Whether the median is on the target's right side; None where there is no target."""
    return None if record["target"] is None else by_target(record)[1] >= 1


def sign(record: dict[str, Any]) -> str:
    """Which side is the right one."""
    return "≤" if record["at_most"] else "≥"


def line_text(record: dict[str, Any]) -> str:
    """One record for the terminal."""
    target = "" if record["target"] is None else f" ({sign(record)} {record['target']:g})"
    over, under = (statistics.median(record[f"{side}_runs"]) for side in ("over", "under"))
    spread = f"{record['ratio_min']:.2f}-{record['ratio_max']:.2f}"
    verdict = {None: "", True: "  reached", False: "  NOT reached"}[reached(record)]
    return (
        f"{record['line']}: {record['ratio']:.2f}{target} [{spread}]{verdict}\n"
        f"    {over:.1f} {record['unit']} {record['over']} / {under:.1f} {record['under']}"
    )
