"""Write README's tables of measured figures from the newest records; ``make docs`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marked import rewrite

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
COLUMNS = (
    *("model", "packing", "prefill", "decode", "read per token", "bandwidth", "of roofline"),
    *("loads in", "memory"),
)


def newest_record(folder: Path = HERE / "records") -> Path:
    """The record with the latest date inside."""
    return max(folder.glob("*.json"), key=lambda path: json.loads(path.read_text())[-1]["date"])


def table(path: Path) -> str:
    """A Markdown table of a record's models, one row for each model and packing."""
    records: list[dict[str, Any]] = json.loads(path.read_text())
    first = records[0]
    lines = [
        f"{first['cpu']}, {first['threads']} threads, {first['isa']}, "
        f"{first['compiler'].split(' -')[0]}, {first['date'][:10]} "
        f"([record](benchmarks/records/{path.name})); medians of {first['repeats']} runs, "
        f"random weights of the real shape, int8 head.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| --- | --- |{' ---: |' * (len(COLUMNS) - 2)}",
    ]
    for decode in (r for r in records if r["phase"] == "decode"):
        prefill = next(
            r for r in records if r["phase"] == "prefill" and r["model"] == decode["model"]
        )
        share = decode["gb_per_s"] / decode["roofline_gb_per_s"]
        cells = [
            decode["model"],
            f"`{decode['packing']}`",
            f"{prefill['tokens_per_s']:.0f} tok/s",
            f"{decode['tokens_per_s']:.1f} tok/s",
            f"{decode['bytes_per_token'] / 1e6:.0f} MB",
            f"{decode['gb_per_s']:.1f} GB/s",
            f"{share:.0%}",
            f"{decode['load_s']:.2f} s",
            f"{decode['resident_bytes'] / 1e6:.0f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def peers_table(path: Path) -> str:
    """A Markdown table of programs that took turns, a row for each."""
    records: list[dict[str, Any]] = json.loads(path.read_text())
    by_program: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for record in records:
        by_program.setdefault((record["program"], record["form"]), {})[record["phase"]] = record
    lengths = {record["phase"]: record["tokens"] for record in records}
    first = records[0]
    lines = [
        f"Beside llama.cpp, in turn on the same weights with {first['threads']} threads "
        f"([record](benchmarks/records/peers/{path.name})); in brackets, by how much the first row "
        "is the faster:",
        "",
        f"| program | weights | decode {lengths['decode']} | prefill {lengths['prefill']} |",
        "| --- | --- | ---: | ---: |",
    ]
    for (program, form), phases in by_program.items():
        rates = [
            f"{phases[phase]['tokens_per_s']:.1f} tok/s ({phases[phase]['ratio']:.1f})"
            for phase in ("decode", "prefill")
        ]
        lines.append(f"| {program} | `{form}` | {' | '.join(rates)} |")
    return "\n".join(lines)


def parts() -> dict[str, str]:
    """What stands between marks, by their name."""
    peers = newest_record(HERE / "records" / "peers")
    return {"figures": f"{table(newest_record())}\n\n{peers_table(peers)}"}


def main() -> None:
    """Rewrite README.md."""
    rewrite(README, parts())


if __name__ == "__main__":
    main()
