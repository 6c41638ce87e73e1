"""What Tab completes: commands, settings and their values, file names."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from bitinfer.cli.chat.commands import COMMANDS
from bitinfer.cli.chat.settings import SWITCHES


class CommandCompleter(Completer):
    """Completes lines that begin with a slash."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """What can stand at the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text[1:].partition(" ")
        command = COMMANDS.get(name)
        if not space:
            for candidate, about in COMMANDS.items():
                if candidate.startswith(name):
                    end = " " if about.usage else ""
                    yield Completion(candidate + end, -len(name), display=f"/{candidate}")
        elif command is not None and command.words is None:
            yield from self._paths.get_completions(Document(rest), event)
        elif command is not None:
            first, second, typed = rest.partition(" ")
            if not second:
                words, typed = command.words or (), first
            else:
                words = (*(SWITCHES[first][0] if first in SWITCHES else ()), "default")
            end = " " if name == "set" and not second else ""
            for word in words:
                if word.startswith(typed):
                    yield Completion(word + end, -len(typed), display=word)
