"""How `bitinfer history` shows conversations: tables on a terminal, lines with tabs in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from bitinfer.cli.text import printable
from bitinfer.history import Conversation, StoredMessage

if TYPE_CHECKING:
    from rich.console import Console

# Columns of a table: number, time, text, and more; a narrow terminal shows fewer.
_TIME, _TEXT = 1, 2
_COLUMNS = ((80, (0, 1, 2, 3, 4)), (50, (0, 1, 2)), (0, (0, 2)))
_WIDEST = 16  # of the columns beside the text


def title(conversation: Conversation) -> str:
    """What a conversation is called."""
    return printable(conversation.title) or "(nothing said)"


def print_rows(
    rows: Sequence[Sequence[str]], headings: Sequence[str], words: Sequence[str] = ()
) -> None:
    """Rows of number, time, text and more: a table as wide as the terminal, or lines with tabs.

    In the table, ``words`` stand out from the text.
    """
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.table import Table
    from rich.text import Text

    console = _console()
    fitting = next(columns for width, columns in _COLUMNS if console.width >= width)
    shown = [n for n in fitting if n < len(headings)]
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    table.show_header = len(shown) > 2
    for n in shown:
        widest = max(len(_cell(row, n)) for row in [headings, *rows])
        table.add_column(
            headings[n],
            justify="right" if n in (0, 3) else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=None if n == _TEXT else min(widest, _WIDEST),
            ratio=1 if n == _TEXT else None,
            style="" if n == _TEXT else "bold" if n == 0 else "dim",
        )
    for row in rows:
        texts = {n: Text(_cell(row, n)) for n in shown}
        texts[_TEXT].highlight_words(words, "bold", case_sensitive=False)
        table.add_row(*texts.values())
    console.print(table)


def _console() -> Console:
    """Stdout; rich would take a terminal of the type dumb for 80 columns wide."""
    from rich.console import Console

    size = shutil.get_terminal_size()
    return Console(width=size.columns, height=size.lines, highlight=False)


def _cell(row: Sequence[str], column: int) -> str:
    return _local(row[column]) if column == _TIME and row[column][:1].isdigit() else row[column]


def _local(time: str) -> str:
    """A UTC time of the database, for people: local, to the minute."""
    return (
        datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone().strftime("%Y-%m-%d %H:%M")
    )


def print_conversation(conversation: Conversation, messages: Sequence[StoredMessage]) -> None:
    """What was said, as it looked in the chat."""
    from rich.text import Text

    console = _console()
    console.print(Text(title(conversation), "bold"))
    facts = f"{printable(conversation.model)}, {_local(conversation.created)}\n"
    console.print(Text(facts, "dim"))
    if conversation.system:
        console.print(Text(printable(conversation.system) + "\n", "dim"))
    for message in messages:
        text = printable(message.content.strip())
        if message.role == "user":
            console.print(Text(f">>> {text}", "bold"))
        else:
            console.print(Text(text + "\n"))
