"""``Chat``: reads what is typed, runs commands, shows replies, until it is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import click

from bitinfer.cli.chat import commands
from bitinfer.cli.chat.session import Session
from bitinfer.cli.chat.stats import stats
from bitinfer.cli.chat.terminal import can_redraw, without_echo
from bitinfer.cli.chat.view import ReplyView, dim, terminal_size
from bitinfer.cli.text import WordWrap, printable, proper
from bitinfer.errors import BitinferError

Ask = Callable[[str], str | None]


class Chat:
    """A conversation on a terminal.

    Attributes:
        session: What was said.
        leaving: Set to end.
        file: Where the conversation was saved or loaded last.
    """

    def __init__(self, session: Session, ask: Ask) -> None:
        """Ask with ``ask``, which gets a text to begin with and returns None to leave."""
        self.session = session
        self.leaving = False
        self.file: Path | None = None
        self._ask = ask
        self._notes: list[str] = []  # to be said after the reply

    def run(self) -> None:
        """Ask and answer until it is left."""
        while not self.leaving:
            text = self._ask("")
            if text is None:
                return
            self._do(text)

    def say(self, text: str) -> None:
        """Print a text that is no reply, wrapped at words, and a blank line."""
        click.echo(_wrapped(text) + "\n")

    def note(self, text: str) -> None:
        """Say something when the reply has ended."""
        self._notes.append(f"note: {text}")

    def say_stats(self) -> None:
        """Print the figures of the last reply."""
        assert self.session.completion is not None
        columns = terminal_size().columns
        click.echo(dim(stats(self.session.completion, self.session.model, columns)))

    def show_last(self, title: str) -> None:
        """Print the end of a conversation that goes on."""
        turns = self.session.turns
        self._say_dim([f"{title} ({len(turns)} messages)" if turns else title])
        for turn in turns[-2:]:
            if turn.role == "user":
                click.echo(_wrapped(f">>> {turn.content}"))
            else:
                view = self._view()
                view.add(turn.content)
                view.finish()
        click.echo()

    def edit_question(self) -> None:
        """Let the last question be changed, and ask it."""
        text = self._ask(self.session.question or "")
        if text is None:
            self.leaving = True
        elif commands.is_command(text):
            self._do(text)
        elif text:
            self.answer(self.session.edit(proper(text)))

    def answer(self, pieces: Generator[str, None, None]) -> None:
        """Show a reply; Ctrl-C ends it, an error does not end the chat."""
        view, problem = self._view(), ""
        with without_echo(view.begin_anew), closing(pieces):
            try:
                for piece in pieces:
                    view.add(piece)
            except KeyboardInterrupt:
                problem = "[stopped]"
            except (BitinferError, ValueError) as error:
                problem = f"error: {error}"
            finally:
                view.finish()
        self._say_dim([problem or self._why_cut(), *self._notes])
        self._notes.clear()
        if self.session.settings["stats"] == "on" and self.session.completion is not None:
            self.say_stats()
        click.echo()

    def _view(self) -> ReplyView:
        settings = self.session.settings
        return ReplyView(
            live=can_redraw(sys.stdout),
            markdown=settings["markdown"] == "on",
            thinking=settings["thinking"] == "show",
        )

    def _say_dim(self, texts: list[str]) -> None:
        for text in filter(None, texts):
            click.echo(dim(_wrapped(text)))

    def _why_cut(self) -> str:
        """Why the last reply is not at its end, and how to go on; "" if it is."""
        completion = self.session.completion
        if completion is None or completion.finish_reason != "length":
            return ""
        most = self.session.settings["max_tokens"]
        if completion.usage.completion_tokens >= most:
            return f'[cut at max_tokens {most}: ask "go on", or /set max_tokens and /retry]'
        length = self.session.model.context_length
        return f"[the context of {length} tokens is full: /clear, or see --context-length]"

    def _do(self, text: str) -> None:
        """Run a command or answer a question; what cannot be done is said in a line."""
        if not text:
            return
        if not commands.is_command(text):
            self.answer(self.session.ask(proper(text)))
            return
        try:
            commands.run(self, text)
        except (BitinferError, ValueError) as error:
            self.say(f"error: {error}")


def _wrapped(text: str) -> str:
    wrap = WordWrap(terminal_size().columns)
    return wrap.add(printable(text)) + wrap.finish()
