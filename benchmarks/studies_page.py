"""Write docs/training-studies.md and its pictures from the newest record of each study."""

from __future__ import annotations

import json
import math
from typing import Any

import matplotlib as mpl
from bench_model import HERE
from marked import picture, rewrite
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from study_runs import STUDIES
from tables_md import table

from bitinfer.bench.plot_style import COLOURS, rc_params

DOCS = HERE.parent / "docs"
STORIES, CHAT = "val.txt", "val_chat.txt"

Lines = list[dict[str, Any]]


def newest() -> dict[str, Lines]:
    """Name of each study that has a record -> its newest one."""
    found: dict[str, Lines] = {}
    for path in (HERE / "records" / "studies").glob("*.json"):
        lines: Lines = json.loads(path.read_text(encoding="utf-8"))
        study = lines[0]["study"]
        if study in STUDIES:
            found[study] = max(lines, found.get(study, lines), key=lambda known: known[0]["date"])
    return found


def result(lines: Lines) -> str:
    """The table of a study: what each run came to."""
    first = lines[0]["validation"][STORIES]
    rows: list[list[str | float | None]] = []
    for line in lines:
        stories, chat = (line["validation"][name] for name in (STORIES, CHAT))
        row = [line["run"], f"{line['parameters'] / 1e6:.1f} M", f"{stories:.3f}"]
        row += [f"{stories - first:+.3f}", f"{math.exp(stories):.2f}", f"{chat:.3f}"]
        rows.append([*row, f"{line['largest_grad_norm']:.1f}"])
    heading = ["run", "parameters", "loss, stories", "to the first", "perplexity", "loss, chat"]
    where = f"{lines[0]['tokens'] / 1e6:.1f} M tokens each, {lines[0]['cpu']},"
    where += f" {lines[0]['date'][:10]}, commit {lines[0]['commit']}."
    return f"{where}\n\n{table([*heading, 'largest gradient'], rows)}"


def idle(lines: Lines) -> str:
    """How many neurons work in each layer, of the runs with squared ReLU that the engine takes."""
    sparse = [line for line in lines if "density" in line]
    most = max(len(line["density"]["gate"]) for line in sparse)
    rows: list[list[str | float | None]] = []
    for line in sparse:
        shares = zip(line["density"]["gate"], line["density"]["down"], strict=True)
        cells = [f"{gate:.2f} / {down:.2f}" for gate, down in shares]
        rows.append([line["run"], *cells, *[None] * (most - len(cells))])
    return table(["run", *(f"layer {i}" for i in range(most))], rows)


def draw(study: str, lines: Lines, theme: str) -> None:
    """One picture: validation loss of the stories by tokens learned, a line for each run."""
    with mpl.rc_context(rc_params(theme)):
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        axes = figure.subplots()
        for index, line in enumerate(lines):
            tokens = [at for at, _ in line["validations"]]
            losses = [validation[STORIES] for _, validation in line["validations"]]
            colours = COLOURS[theme]
            style = ("-", "--", ":")[index // 3 % 3] if len(lines) > len(colours) else "-"
            colour = colours[index % 3 if len(lines) > len(colours) else index]
            axes.plot(tokens, losses, style, color=colour, marker="o", markersize=3)
            axes.lines[-1].set_label(line["run"])
        axes.set(title=STUDIES[study].title, xlabel="tokens", ylabel="validation loss, stories")
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        figure.legend(loc="outside right upper")
        path = DOCS / "plots" / f"study-{study}-{theme}.svg"
        figure.savefig(path)


def parts(found: dict[str, Lines]) -> dict[str, str]:
    """What stands between marks of the page, by name."""
    written = {}
    for study, lines in found.items():
        title = STUDIES[study].title
        shown = picture(f"study-{study}", f"{title}: validation loss by tokens")
        written[study] = f"{shown}\n\n{result(lines)}"
    if "sizes" in found:
        written["density"] = idle(found["sizes"])
    return written


def main() -> None:
    """Rewrite the page; nothing where there is no record."""
    found = newest()
    for study, lines in found.items():
        for theme in ("light", "dark"):
            draw(study, lines, theme)
    if found:
        rewrite(DOCS / "training-studies.md", parts(found))


if __name__ == "__main__":
    main()
