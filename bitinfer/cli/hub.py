"""``bitinfer pull``, ``list``, ``show``, ``verify`` and ``rm``: models of the Hugging Face hub."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.bytes_bar import bytes_bar
from bitinfer.cli.notes import echo_notes
from bitinfer.cli.size import size_text
from bitinfer.cli.text import printable

if TYPE_CHECKING:
    from bitinfer.hub.inventory import Kept
    from bitinfer.hub.names import KnownModel, ModelName


@click.command(
    epilog="""\b
Examples:
  bitinfer pull 2b4t
  bitinfer pull microsoft/bitnet-b1.58-2B-4T@main
  HF_TOKEN=hf_... bitinfer pull owner/private"""
)
@click.argument("model")
@click.option("--check", is_flag=True, help="Also check what is here, and mend what is damaged")
def pull(model: str, check: bool) -> None:
    """Fetch MODEL (owner/name, owner/name@revision or a short name) and pack it.

    Of GGUF files, the one of a ternary type is taken; owner/name:FILE or owner/name:i2_s names it.

    Asks the hub for what is new; what is here is not fetched again, and a download that was cut
    off goes on where it stopped. HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE do what they do
    for every program that uses the hub.
    """
    from bitinfer.hub.inventory import find_kept
    from bitinfer.hub.pull import pull as fetch

    name = _name(model)
    with bytes_bar() as report:
        echo_notes(fetch(name, report, check=check))
    kept = find_kept(name)
    click.echo(f"{name}: ready, {_sizes(kept)}: 'bitinfer chat {model}'")


@click.command(
    "list",
    epilog="""\b
Examples:
  bitinfer list
  bitinfer list --known""",
)
@click.option("--known", is_flag=True, help="Show the short names of known models instead")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def list_command(known: bool, as_json: bool) -> None:
    """List pulled models, the last used first."""
    if known:
        _list_known(as_json)
        return
    from bitinfer.hub.inventory import list_models

    models = list_models()
    if as_json:
        click.echo(json.dumps([_facts(kept) for kept in models], indent=2))
    elif models:
        rows = [["model", "revision", "on disk", "state", "last used"]]
        for kept in models:
            record, size = kept.record, size_text(kept.source_bytes + kept.packed_bytes)
            revision = _revision(record.revision, record.commit)
            rows.append([record.title, revision, size, kept.state, _when(kept.used)])
        _print(rows, left=["model", "revision", "state", "last used"], drop=["last used"])
    else:
        click.echo("nothing was pulled: 'bitinfer pull MODEL' does, 'bitinfer list --known' helps")


@click.command(
    epilog="""\b
Examples:
  bitinfer show 2b4t
  bitinfer show owner/name@v1 --json"""
)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object")
def show(model: str, as_json: bool) -> None:
    """Show what is known of MODEL, pulled or not."""
    from bitinfer.hub.inventory import list_models
    from bitinfer.hub.names import known_models

    name = _name(model)
    facts: dict[str, Any] = {"repo": name.repo, "revision": name.revision, "file": name.file}
    for short, known in known_models().items():
        if known.repo == name.repo:
            facts |= {"short_name": short, **_known_facts(known)}
    kept = next((one for one in list_models() if one.record.name == name), None)
    facts |= _facts(kept) if kept else {"state": "not on this disk"}
    facts = {key: value for key, value in facts.items() if value is not None}
    click.echo(json.dumps(facts, indent=2) if as_json else _lines(facts))


@click.command(
    epilog="""\b
Examples:
  bitinfer verify 2b4t"""
)
@click.argument("model")
@click.pass_context
def verify(ctx: click.Context, model: str) -> None:
    """Read all files of MODEL and compare them with their digests; exit code 1 if one is bad."""
    from bitinfer.hub.inventory import find_kept
    from bitinfer.hub.verify import verify as damages

    kept = find_kept(_name(model))
    with bytes_bar() as report:
        found = damages(kept.record, report)
    for damage in found:
        click.echo(f"{damage.path}: {damage.problem}")
    if found:
        click.echo(f"'bitinfer pull --check {model}' mends it")
        ctx.exit(1)
    click.echo(f"{kept.record.name}: all files are as they should be, {_sizes(kept)}")


@click.command(
    epilog="""\b
Examples:
  bitinfer rm 2b4t
  bitinfer rm owner/name --yes"""
)
@click.argument("model")
@click.option("-y", "--yes", is_flag=True, help="Do not ask")
@click.pass_context
def rm(ctx: click.Context, model: str, yes: bool) -> None:
    """Remove MODEL: what was downloaded and what was packed."""
    from bitinfer.hub.inventory import find_kept, remove

    kept = find_kept(_name(model))
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("no terminal to ask on: --yes removes without asking", ctx=ctx)
        if not click.confirm(f"Remove {kept.record.name}, {_sizes(kept)}?", err=True):
            click.echo("nothing removed", err=True)
            return
    with bytes_bar() as report:
        remove(kept.record.name, report)
    click.echo(f"removed {kept.record.name}", err=True)


def _name(model: str) -> ModelName:
    """The model of the hub that the user names.

    Raises:
        click.UsageError: it can be none.
    """
    from bitinfer.hub.names import parse_name

    name = parse_name(model)
    if name is None:
        raise click.UsageError(
            f"{model!r}: expected owner/name, owner/name@revision, owner/name:file.gguf or a short"
            " name ('bitinfer list --known' shows them)",
            ctx=click.get_current_context(),
        )
    return name


def _list_known(as_json: bool) -> None:
    from bitinfer.hub.names import known_models

    known = known_models()
    if as_json:
        facts = {
            short: {"repo": model.repo, **_known_facts(model)} for short, model in known.items()
        }
        click.echo(json.dumps(facts, indent=2))
        return
    rows = [["name", "model", "download", "memory"]]
    for short, model in known.items():
        sizes = (model.download_bytes, model.memory_bytes)
        rows.append([short, model.repo, *(size_text(size) if size else "" for size in sizes)])
    _print(rows, left=["name", "model"], drop=["download"])


def _known_facts(known: KnownModel) -> dict[str, int | str | None]:
    return {
        "licence": known.licence,
        "parameters": known.parameters,
        "download_bytes": known.download_bytes,
        "memory_bytes": known.memory_bytes,
    }


def _facts(kept: Kept) -> dict[str, Any]:
    record = kept.record
    return {
        "repo": record.repo,
        "revision": record.revision,
        **({"file": record.file} if record.file else {}),
        "commit": record.commit,
        "licence": record.licence,
        "state": kept.state,
        "source_bytes": kept.source_bytes,
        "packed_bytes": kept.packed_bytes,
        "folder": str(record.packed_folder) if record.is_packed else None,
        "last_used": _when(kept.used),
    }


def _lines(facts: dict[str, Any]) -> str:
    """One line a fact, for people."""
    lines = []
    for key, value in facts.items():
        shown = size_text(value) if key.endswith("_bytes") else value
        shown = f"{value:,}" if key == "parameters" else shown
        name = key.removesuffix("_bytes").replace("_", " ")
        lines.append(f"{name:<11} {printable(str(shown))}")
    return "\n".join(lines)


def _sizes(kept: Kept) -> str:
    return f"{size_text(kept.source_bytes)} downloaded, {size_text(kept.packed_bytes)} packed"


def _revision(revision: str, commit: str) -> str:
    short = commit[:8]
    return short if revision == commit else f"{revision} ({short})"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _print(rows: list[list[str]], *, left: list[str], drop: list[str]) -> None:
    from bitinfer.cli.table import console, print_table

    print_table(
        [[printable(cell) for cell in row] for row in rows], console(), left=left, drop=drop
    )
