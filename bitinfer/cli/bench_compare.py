"""``bitinfer bench compare``: how much faster one measurement is than another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bitinfer.bench.compare import Comparison

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Compare two measurements.")
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "md", "json"]),
    default="table",
    show_default=True,
    help="What goes to stdout",
)
def compare(old: Path, new: Path, output: str) -> None:
    """Compare two files of records that 'bitinfer bench --json FILE' wrote.

    A ratio is NEW's median speed by OLD's; its spread goes from the slowest run of NEW by the
    fastest of OLD to the reverse. Exit code 1 if no test can be compared.
    """
    from bitinfer.bench import read_records
    from bitinfer.bench.compare import compare as compare_records
    from bitinfer.bench.tables import markdown

    pairs, unpaired = compare_records(read_records(old), read_records(new))
    if output == "json":
        click.echo(json.dumps([pair.to_json() for pair in pairs], indent=1))
    elif pairs and output == "md":
        click.echo(markdown(_rows(pairs), left=("model", "test", "verdict")))
    elif pairs:
        from bitinfer.cli.table import console, print_table

        drop = (
            "MB/token",
            "roofline",
            "old tokens/s",
            "new tokens/s",
            "model",
            "threads",
            "spread",
        )
        print_table(_rows(pairs), console(), left=("model", "test", "verdict"), drop=drop)
    for note in _notes(pairs):
        click.echo(f"note: {note}", err=True)
    if unpaired:
        tests = ", ".join(dict.fromkeys(f"{r.test} of {r.model}" for r in unpaired))
        click.echo(f"note: only in one of the two: {tests}", err=True)
    if all(pair.obstacle for pair in pairs):
        raise click.ClickException(f"{old}, {new}: expected a test that both measured alike")


def _rows(pairs: list[Comparison]) -> list[list[str]]:
    rows = [["model", "test", "threads", "old tokens/s", "new tokens/s"]]
    rows[0] += ["MB/token", "roofline", "ratio", "spread", "verdict"]
    for pair in pairs:
        row = [pair.old.model, pair.test, str(pair.old.threads)]
        row += [f"{record.tokens_per_s:.1f}" for record in (pair.old, pair.new)]
        row.append(
            " > ".join(f"{record.bytes_per_token / 1e6:.1f}" for record in (pair.old, pair.new))
        )
        row.append(" > ".join(f"{record.roofline_share:.0%}" for record in (pair.old, pair.new)))
        spread = f"{pair.ratio_min:.2f}-{pair.ratio_max:.2f}" if not pair.obstacle else ""
        row += ["" if pair.obstacle else f"{pair.ratio:.2f}", spread, pair.verdict]
        rows.append(row)
    return rows


def _notes(pairs: list[Comparison]) -> list[str]:
    """Everything that is not the same in the two files, each said once."""
    differs = [fact for pair in pairs for fact in pair.differs]
    obstacles = [pair.obstacle for pair in pairs if pair.obstacle]
    return list(dict.fromkeys([*obstacles, *(f"differs: {fact}" for fact in differs)]))
