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


def gaps(lines: Lines) -> str:
    """By how much ternary and binary are behind full precision, size by size."""
    rows: list[list[str | float | None]] = []
    for size, known in by_size(lines).items():
        losses = {kind: line["validation"][STORIES] for kind, line in known.items()}
        full = losses["full"]
        behind = [f"{losses[kind] - full:+.3f}" for kind in ("bitnet", "binary")]
        rows.append([size, f"{full:.3f}", *behind, f"{losses['binary'] - losses['bitnet']:+.3f}"])
    return table(["size", "full", "bitnet to full", "binary to full", "binary to bitnet"], rows)


def spread(lines: Lines) -> str:
    """How far runs that differ in their seed lie apart, and their gap to full precision."""
    losses: dict[str, list[float]] = {}
    for line in lines:
        losses.setdefault(line["run"].split(",")[0], []).append(line["validation"][STORIES])
    for kind in ("bitnet", "binary"):
        pairs = zip(losses[kind], losses["full"], strict=True)
        losses[f"{kind} to full"] = [loss - full for loss, full in pairs]
    rows: list[list[str | float | None]] = [
        [name, *(f"{of:.3f}" for of in (sum(known) / len(known), min(known), max(known)))]
        for name, known in losses.items()
    ]
    return table(["loss, stories", "mean", "least", "largest"], rows)


def by_size(lines: Lines) -> dict[str, dict[str, dict[str, Any]]]:
    """Size -> kind of projections -> the run, of runs that are named so."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        kind, size = line["run"].split()
        found.setdefault(size, {})[kind] = line
    return found


def panels_of(study: str, lines: Lines) -> dict[str, dict[str, dict[str, Any]]]:
    """Title of each panel of a study's picture -> label of each line in it -> the run.

    Runs that are named "panel, label" have a panel for each of what stands before the comma.
    """
    if study == "sizes":
        return {f"size {size}": runs for size, runs in by_size(lines).items()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        title, comma, label = line["run"].partition(", ")
        found.setdefault(title if comma else STUDIES[study].title, {})[label or title] = line
    return found


def draw(study: str, lines: Lines, theme: str) -> None:
    """One picture: validation loss of the stories by tokens learned, a line for each run."""
    panels = panels_of(study, lines)
    with mpl.rc_context(rc_params(theme)):
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, runs) in zip(row, panels.items(), strict=True):
            for colour, (name, line) in zip(COLOURS[theme], runs.items(), strict=False):
                tokens = [at for at, _ in line["validations"]]
                losses = [validation[STORIES] for _, validation in line["validations"]]
                axes.plot(tokens, losses, color=colour, marker="o", markersize=3, label=name)
            axes.set(title=title, xlabel="tokens")
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        row[0].set_ylabel("validation loss, stories")
        figure.legend(*row[0].get_legend_handles_labels(), loc="outside right upper")
        path = DOCS / "plots" / f"study-{study}-{theme}.svg"
        figure.savefig(path, metadata={"Date": None})  # the same records, the same file


def parts(found: dict[str, Lines]) -> dict[str, str]:
    """What stands between marks of the page, by name."""
    written = {}
    for study, lines in found.items():
        title = STUDIES[study].title
        shown = picture(f"study-{study}", f"{title}: validation loss by tokens")
        written[study] = f"{shown}\n\n{result(lines)}"
    if "seeds" in found:
        written["spread"] = spread(found["seeds"])
    if "sizes" in found:
        written["gaps"] = gaps(found["sizes"])
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
