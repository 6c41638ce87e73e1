"""Write the promises and figures of docs/speed.md from records/reach; ``make docs`` runs it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from marked import picture, rewrite
from reach_lines import reached, sign

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "speed.md"
PLOTS = HERE.parent / "docs" / "plots"


def newest_lines(folder: Path = HERE / "records" / "reach") -> list[dict[str, Any]]:
    """Each line from the newest record that has it, in the order of their groups."""
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    files.sort(key=lambda records: records[0]["date"])
    newest = {record["line"]: record for records in files for record in records}
    return list(newest.values())


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


def parts() -> dict[str, str]:
    """What stands between marks, by their name; nothing where there is no record."""
    lines = newest_lines()
    if not lines:
        return {}
    newest = max(lines, key=lambda line: line["date"])
    where = (
        f"{newest['cpu']}, {newest['cores']} cores, {newest['threads']} threads where nothing else"
        f" is said, best row {newest['isa']}, {newest['date'][:10]}, commit {newest['commit']};"
        f" {newest['shape']} with random weights; medians of {newest['rounds']} rounds in which the"
        f" runs took turns; {newest['peer']}. Ratios are of the same round."
    )
    shown = picture("reach", "Each promise: measured by its target")
    return {"figures": f"{where}\n\n{shown}\n\n{table(lines)}"}


def main() -> None:
    """Rewrite the page and draw its picture."""
    from reach_plot import draw

    rewrite(PAGE, parts())
    if lines := newest_lines():
        for theme in ("light", "dark"):
            draw(lines, PLOTS / f"reach-{theme}.svg", theme)


if __name__ == "__main__":
    main()
