"""Write README's table of measured figures from the newest record; ``make docs`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN = "<!-- figures: written by `make docs` from the newest record -->"
END = "<!-- end of figures -->"
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


def with_table(readme: str, figures: str) -> str:
    """README's text with the part between the marks replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def main() -> None:
    """Rewrite README.md."""
    text = README.read_text(encoding="utf-8")
    README.write_text(with_table(text, table(newest_record())), encoding="utf-8")


if __name__ == "__main__":
    main()
