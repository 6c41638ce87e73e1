"""Write the figures of docs/serve.md from the newest records; ``make docs`` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marked import rewrite
from tables_md import number, table

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "serve.md"
SLOW_MS = 50.0  # bad requests that take longer are named


def newest(name: str, records: Path = HERE / "records") -> list[dict[str, Any]]:
    """The newest record of a kind; empty where there is none."""
    files = [json.loads(path.read_text()) for path in (records / name).glob("*.json")]
    return max(files, key=lambda found: found[0]["date"], default=[])


def throughput(records: list[dict[str, Any]]) -> str:
    """Many requests at once by one alone."""
    batch, *servers = records
    verdict = "" if batch["ratio"] >= batch["target"] else " (not reached)"
    rows = [
        (
            f"{one['program']}, {one['concurrent']} at once",
            f"{one['requests_per_s']:.2f}",
            one["tokens_per_s"],
            one["ttft_s_median"],
        )
        for one in servers
    ]
    spread = f"{batch['ratio_min']:.2f}-{batch['ratio_max']:.2f}"
    return (
        f"{_where(batch)} {batch['shape']} with random weights, prompts of"
        f" {batch['prompt_tokens']} tokens, replies of {batch['generated_tokens']}. In the"
        f" scheduler {batch['concurrent']} replies together come at"
        f" {number(batch['tokens_per_s'])} tokens/s, **{batch['ratio']:.2f}** times one alone"
        f" ({spread}; wanted: {batch['target']:g}{verdict}). Over HTTP, all asked for at the same"
        " time:\n\n" + table(["", "requests/s", "tokens/s", "first token after s"], rows)
    )


def load(records: list[dict[str, Any]]) -> str:
    """Many questions, and clients that go away."""
    (one,) = records
    rss = [one[f"rss_bytes_{which}"] / 1e6 for which in ("least", "most")]
    broken = [promise for promise, is_kept in one["kept"].items() if not is_kept]
    return (
        f"{_where(one)} {one['requests']:,} questions to the embedded model, {one['concurrent']}"
        f" at a time: {one['answered_as_alone']:,} answers as given alone, {len(one['lost'])} lost,"
        f" {len(one['crossed'])} another's; {number(one['requests_per_s'])} requests/s; memory"
        f" {rss[0]:.1f} to {rss[1]:.1f} MB after the first fifth. /health was asked"
        f" {one['health_asked']:,} times, {one['health_failed']} in vain: median"
        f" {number(one['health_ms_median'])} ms, at most {number(one['health_ms_most'])} ms."
        f" {one['disconnects']:,} clients broke off at random and left"
        f" {sum(one['leaked'].values())} slots, blocks or file descriptors behind."
        + (f" Not kept: {', '.join(broken)}." if broken else "")
    )


def fuzz(records: list[dict[str, Any]]) -> str:
    """Requests made of the document."""
    (one,) = records
    counts = [item for found in one["statuses"].values() for item in found.items()]
    errors = sum(count for status, count in counts if status.startswith("5"))
    return (
        f"{one['program']} made {one['requests']:,} valid and other requests of the OpenAPI"
        f" document, {one['examples']} and more for each route that takes a body:"
        f" {errors} answers were a 5xx ({one['date'][:10]}, commit {one['commit']})."
    )


def bad_requests(records: list[dict[str, Any]]) -> str:
    """How long each kind took."""
    slow = [one for one in records if one["answered_ms"] > SLOW_MS]
    rows = [(one["request"], one["answer"], f"{one['answered_ms']:.0f}") for one in slow]
    return (
        f"{_where(records[0])} {len(records)} kinds of bad requests, medians; those that are not in"
        f" the table were answered within {SLOW_MS:g} ms.\n\n"
        + table(["request", "answer", "ms"], rows)
    )


def _where(record: dict[str, Any]) -> str:
    cpu, cores, day = record["cpu"], record["cores"], record["date"][:10]
    return f"{cpu}, {cores} cores, {day}, commit {record['commit']}:"


KINDS = {"throughput": throughput, "load": load, "fuzz": fuzz, "bad-requests": bad_requests}


def parts(records: Path = HERE / "records") -> dict[str, str]:
    """What stands between marks, by their name; nothing where there is no record."""
    found = {name: newest(name, records) for name in KINDS}
    return {name: KINDS[name](one) for name, one in found.items() if one}


def main() -> None:
    """Rewrite the page."""
    rewrite(PAGE, parts())


if __name__ == "__main__":
    main()
