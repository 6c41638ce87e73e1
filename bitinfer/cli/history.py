"""``bitinfer history``: conversations as tables for people, lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bitinfer.cli.history_view import print_conversation, print_rows, title
from bitinfer.cli.options import history_file_option
from bitinfer.cli.setting import Whole
from bitinfer.cli.text import printable
from bitinfer.history import Conversation, History, default_path

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON")
_LIMIT = click.option(
    "-n", "--limit", type=Whole(1), default=20, show_default=True, help="Most lines to show"
)


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  bitinfer history search sourdough
  bitinfer history show 12
  bitinfer history export 12 --output bread.md
  bitinfer chat --continue            go on with the last one""",
)
@click.pass_context
def history(ctx: click.Context) -> None:
    """List, search, show, export and remove conversations.

    They are kept in a database that only you can read. Piped output has one line for each, with
    tabs between the columns.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@history.command("list")
@_LIMIT
@_JSON
@history_file_option
def list_(limit: int, as_json: bool, history_file: Path | None) -> None:
    """List conversations, the latest first."""
    with _open(history_file) as opened:
        found = opened.list(limit)
    if as_json:
        _print_json([asdict(conversation) for conversation in found])
    elif not found:
        click.echo("no conversations yet: 'bitinfer chat' begins one", err=True)
    else:
        print_rows([_row(c) for c in found], ("number", "changed", "title", "messages", "model"))


@history.command()
@click.argument("text")
@_LIMIT
@_JSON
@history_file_option
def search(text: str, limit: int, as_json: bool, history_file: Path | None) -> None:
    """Find messages by their words.

    A message must have all words of TEXT, or their beginnings. The latest comes first.
    """
    with _open(history_file) as opened:
        hits = opened.search(text, limit)
    if as_json:
        _print_json([asdict(hit) for hit in hits])
    elif not hits:
        click.echo(f"no message has {printable(text)!r}", err=True)
    else:
        rows = [(str(h.conversation_id), h.created, printable(h.excerpt), h.role) for h in hits]
        print_rows(rows, ("number", "said", "text", "by"), words=text.split())


@history.command()
@click.argument("number", type=Whole(1), required=False)
@_JSON
@history_file_option
def show(number: int | None, as_json: bool, history_file: Path | None) -> None:
    """Show conversation NUMBER, or the latest.

    On a terminal it looks as in the chat; a pipe gets Markdown.
    """
    with _open(history_file) as opened:
        if number is None:
            latest = opened.latest()
            if latest is None:
                raise click.ClickException("no conversations yet: 'bitinfer chat' begins one")
            number = latest.id
        if as_json or not sys.stdout.isatty():
            click.echo(opened.export(number, "json" if as_json else "markdown"), nl=False)
        else:
            print_conversation(opened.conversation(number), opened.messages(number))


@history.command()
@click.argument("number", type=Whole(1))
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "json"]),
    help="Markdown of the last branch, or JSON with all [default: by FILE's name, else markdown]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE instead of stdout",
)
@history_file_option
def export(number: int, form: Any, output: Path | None, history_file: Path | None) -> None:
    """Write out conversation NUMBER."""
    if form is None:
        form = "json" if output is not None and output.suffix == ".json" else "markdown"
    with _open(history_file) as opened:
        text = opened.export(number, form)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(f"wrote {output}", err=True)


@history.command()
@click.argument("numbers", type=Whole(1), nargs=-1)
@click.option("--all", "every", is_flag=True, help="Remove all conversations")
@click.option("-y", "--yes", is_flag=True, help="Do not ask")
@history_file_option
def rm(numbers: Sequence[int], every: bool, yes: bool, history_file: Path | None) -> None:
    """Remove conversations by their NUMBERS.

    Their text is overwritten in the file, not only unlinked.
    """
    if bool(numbers) == every:
        raise click.UsageError("give NUMBERS, or --all", ctx=click.get_current_context())
    with _open(history_file) as opened:
        found = opened.list() if every else [opened.conversation(n) for n in dict.fromkeys(numbers)]
        if not yes and not _confirmed(found):
            click.echo("nothing removed", err=True)
            return
        for conversation in found:
            opened.delete(conversation.id)
    click.echo(f"removed {_count(len(found))}", err=True)


def _open(path: Path | None) -> History:
    return History.open(path.expanduser() if path else default_path())


def _confirmed(found: Sequence[Conversation]) -> bool:
    """Ask on a terminal; without one, nothing is removed unasked."""
    if not sys.stdin.isatty():
        raise click.UsageError(
            "no terminal to ask on: --yes removes without asking", ctx=click.get_current_context()
        )
    only = f"{found[0].id} ({title(found[0])})" if len(found) == 1 else _count(len(found))
    return click.confirm(f"Remove {only}?", err=True)


def _count(number: int) -> str:
    return f"{number} conversation{'s' * (number != 1)}"


def _row(conversation: Conversation) -> tuple[str, ...]:
    facts = conversation
    return (
        *(str(facts.id), facts.updated, title(facts)),
        *(str(facts.num_messages), printable(facts.model)),
    )


def _print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
