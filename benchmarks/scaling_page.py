"""Write the tables and pictures of docs/scaling.md from the records; ``make docs`` runs it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import paper_tables
from marked import picture, rewrite
from scaling_cells import BATCHES, CONTEXTS, STUDIED, Cell
from tables_md import table

from bitinfer.bench import Record

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "scaling.md"
PLOTS = HERE.parent / "docs" / "plots"
NEAR = CONTEXTS[0]


class Study:
    """Records of the cells, of one machine.

    Args:
        path: As ``scaling.py`` writes it.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"scaling-{path.stem}"  # of its pictures
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.records = {line["cell"]: Record.from_json(line) for line in lines}
        cells = Counter(name.split("/")[1] for name in self.records)
        self.isas = [isa for isa, _ in cells.most_common()]  # the best row has most of the cells
        self.best = self.isas[0]
        self.threads = max(record.threads for record in self.records.values())
        self.newest = max(self.records.values(), key=lambda record: record.machine["date"])

    def speed(self, *cell: Any) -> float | None:
        """Tokens/s of a cell; None if it was not measured."""
        record = self.records.get(Cell(*cell).name)
        return record and record.tokens_per_s


def studies(folder: Path = HERE / "records" / "scaling") -> list[Study]:
    """Of every machine, the one that was measured last first."""
    found = [Study(path) for path in folder.glob("*.jsonl")]
    return sorted(found, key=lambda study: study.newest.machine["date"], reverse=True)


def measured(study: Study) -> str:
    """The tables of what was measured."""
    most, best = study.threads, study.best
    rows = [
        [
            f"{shape}, {isa}",
            *(study.speed(shape, isa, threads, NEAR, 1) for threads in (most, 1)),
            study.speed(shape, isa, most, NEAR, 8),
            *(study.speed(shape, isa, threads, 0, 0) for threads in (most, 1)),
        ]
        for shape in STUDIED
        for isa in study.isas
    ]
    heading = ["tokens/s", f"decode, {most} threads", "1 thread", "batch 8", "prefill", "1 thread"]
    contexts = [[s, *(study.speed(s, best, most, c, 1) for c in CONTEXTS)] for s in STUDIED]
    batches = [[s, *(study.speed(s, best, most, NEAR, b) for b in BATCHES)] for s in STUDIED]
    both = [[c, *(study.speed("2B", best, most, c, b) for b in BATCHES)] for c in CONTEXTS]
    return "\n\n".join(
        [
            f"By row, after {NEAR} tokens; a prefill is a prompt of {NEAR}:",
            table(heading, rows),
            f"Decode by context, {best}, {most} threads:",
            table(["context", *map(str, CONTEXTS)], contexts),
            f"All sequences of a batch together, after {NEAR} tokens each:",
            table(["batch", *map(str, BATCHES)], batches),
            "The 2B shape, context (down) by batch (across):",
            table(["context", *map(str, BATCHES)], both),
        ]
    )


def beside_f16(records: list[dict[str, Any]]) -> str:
    """How much faster and smaller than llama.cpp in F16."""
    rows = []
    for record in (r for r in records if r["phase"] == "decode"):
        prefill = next(
            r for r in records if r["shape"] == record["shape"] and r["phase"] == "prefill"
        )
        memory = record["f16_resident_bytes"] / record["resident_bytes"]
        rows.append(
            [
                record["shape"],
                " / ".join(f"{record[f'{f16}resident_bytes'] / 1e9:.2f}" for f16 in ("", "f16_")),
                f"**{memory:.1f}**",
                f"{record['tokens_per_s']:.1f} / {record['f16_tokens_per_s']:.1f}",
                f"**{record['ratio']:.1f}**",
                f"{prefill['tokens_per_s']:.0f} / {prefill['f16_tokens_per_s']:.0f}",
                f"**{prefill['ratio']:.1f}**",
            ]
        )
    heading = ["ours / F16", "memory, GB", "less by", "decode, tokens/s", "faster by"]
    return table([*heading, "prefill, tokens/s", "faster by"], rows)


def newest_f16(folder: Path = HERE / "records" / "fp16") -> list[dict[str, Any]]:
    """The newest record of each shape and phase."""
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    files.sort(key=lambda records: records[0]["date"])
    newest = {(r["shape"], r["phase"]): r for records in files for r in records}
    return [newest[key] for key in sorted(newest)]


def part(study: Study) -> str:
    """A machine's section."""
    newest = study.newest
    facts = newest.machine
    where = (
        f"{facts['cores']} cores, {facts['memory'] / 2**30:.0f} GiB, {facts['date'][:10]}, random"
        f" weights, medians of {newest.repeats} runs. Each row runs with the packing that is its"
        " default."
    )
    shown = picture(study.name, f"Speed by context, batch and row of four models, {facts['cpu']}")
    return f"### {facts['cpu']}\n\n{where}\n\n{shown}\n\n{measured(study)}"


def parts() -> dict[str, str]:
    """What stands between marks, by their name; measured ones only where there is a record."""
    found = {"speed on paper": paper_tables.speed(), "energy on paper": paper_tables.energy()}
    machines, f16 = studies(), newest_f16()
    if machines:
        found["measured"] = "\n\n".join(map(part, machines))
    if f16:
        peer = f"{f16[0]['peer']}, {f16[0]['threads']} threads."
        found["beside F16"] = f"{peer}\n\n{beside_f16(f16)}"
    return found


def main() -> None:
    """Rewrite the page and draw its pictures."""
    from scaling_plot import draw

    rewrite(PAGE, parts())
    for study in studies():
        for theme in ("light", "dark"):
            draw(study, PLOTS / f"{study.name}-{theme}.svg", theme)


if __name__ == "__main__":
    main()
