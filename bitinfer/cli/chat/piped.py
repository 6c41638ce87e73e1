"""The chat without a terminal: questions from stdin, replies to stdout, all else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import click

from bitinfer.cli.chat.loop import Chat
from bitinfer.cli.chat.quotes import is_open, unquoted
from bitinfer.cli.chat.stats import stats
from bitinfer.cli.chat.view import terminal_size
from bitinfer.cli.text import printable
from bitinfer.thinking import ThinkingSplitter


class PipedChat(Chat):
    """One reply for each question; commands work too. An error ends it."""

    def say(self, text: str) -> None:
        """Print a text that is no reply."""
        click.echo(printable(text), err=True)

    def note(self, text: str) -> None:
        """Say something at once."""
        click.echo(f"note: {text}", err=True)

    def say_stats(self) -> None:
        """Print the figures of the last reply."""
        assert self.session.completion is not None
        self.say(stats(self.session.completion, self.session.model, terminal_size().columns))

    def answer(self, pieces: Generator[str, None, None]) -> None:
        """Print the text of a reply as it comes."""
        with closing(pieces):
            texts = _answers(pieces) if self.session.settings["thinking"] == "hide" else pieces
            for text in texts:
                click.echo(text, nl=False)
                sys.stdout.flush()
        click.echo()
        if self.session.settings["stats"] == "on" and self.session.completion is not None:
            self.say_stats()


def read_stdin() -> str | None:
    """The next question of stdin: a line, or several between triple quotes; None at its end."""
    text = sys.stdin.readline()
    while is_open(text) and (line := sys.stdin.readline()):
        text += line
    return unquoted(text) if text else None


def _answers(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a reply without its thinking."""
    splitter = ThinkingSplitter()
    for piece in pieces:
        yield from (part.text for part in splitter.add(piece) if not part.thinking)
    yield from (part.text for part in splitter.finish() if not part.thinking)
