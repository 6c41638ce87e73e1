"""Write the promises and figures of docs/speed.md from records/reach; ``make docs`` runs it."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from bench_model import cpu_name
from marked import picture, rewrite
from reach_lines import reached, sign

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "speed.md"
PLOTS = HERE.parent / "docs" / "plots"


def machines(folder: Path = HERE / "records" / "reach") -> dict[str, list[dict[str, Any]]]:
    """Lines by processor, the last measured first; each from the newest record that has it."""
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    files.sort(key=lambda records: records[0]["date"])
    newest: dict[str, dict[str, dict[str, Any]]] = {}
    for records in files:
        lines = newest.pop(records[0]["cpu"], {})
        newest[records[0]["cpu"]] = lines | {record["line"]: record for record in records}
    return {cpu: list(lines.values()) for cpu, lines in reversed(newest.items())}


def plot_name(cpu: str) -> str:
    """What the pictures of a processor are called."""
    return f"reach-{cpu_name(cpu)}"


def table(lines: list[dict[str, Any]]) -> str:
    """A Markdown table: what was promised, what was measured."""
    rows = [
        "| | target | measured | least-largest | medians |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for line in lines:
        verdict = {None: "", True: "", False: " (not reached)"}[reached(line)]
        target = "" if line["target"] is None else f"{sign(line)} {line['target']:g}"
        over, under = (statistics.median(line[f"{side}_runs"]) for side in ("over", "under"))
        cells = [
            line["line"],
            target,
            f"**{line['ratio']:.2f}**{verdict}",
            f"{line['ratio_min']:.2f}-{line['ratio_max']:.2f}",
            f"{over:.1f} {line['unit']} ({line['over']}); {under:.1f} ({line['under']})",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def part(cpu: str, lines: list[dict[str, Any]]) -> str:
    """The figures of a machine."""
    newest = max(lines, key=lambda line: line["date"])
    commits = Counter(line["commit"] for line in lines)
    of = ", ".join(f"{commit} ({count} lines)" for commit, count in commits.items())
    where = (
        f"{newest['cores']} cores, {newest['threads']} threads where nothing else is said, best row"
        f" {newest['isa']}, {newest['date'][:10]}, by commit: {of}; {newest['shape']}"
        f" with random weights; medians of {newest['rounds']} rounds in which the runs took turns;"
        f" {newest['peer']}. Ratios are of the same round."
    )
    shown = picture(plot_name(cpu), f"Each promise on {cpu}: measured by its target")
    return f"### {cpu}\n\n{where}\n\n{shown}\n\n{table(lines)}"


def parts() -> dict[str, str]:
    """What stands between marks, by their name; nothing where there is no record."""
    found = [part(cpu, lines) for cpu, lines in machines().items()]
    return {"figures": "\n\n".join(found)} if found else {}


def main() -> None:
    """Rewrite the page and draw its pictures."""
    from reach_plot import draw

    rewrite(PAGE, parts())
    for cpu, lines in machines().items():
        for theme in ("light", "dark"):
            draw(lines, PLOTS / f"{plot_name(cpu)}-{theme}.svg", theme)


if __name__ == "__main__":
    main()
