"""The line at which one types: its keys, its history, and how several lines are put in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from bitinfer.cli.chat.quotes import is_open, unquoted

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

_PLACEHOLDER = "Ask, or /help"
_LEAVE_HINT = "Ctrl-C again, Ctrl-D or /bye to leave"


class Prompt:
    """Asks for questions and commands, one after the other."""

    def __init__(
        self,
        completer: Completer,
        *,
        history_file: Path | None,
        say: Callable[[str], None],
        input: Input | None = None,  # noqa: A002
        output: Output | None = None,
    ) -> None:
        """Keep what is typed in ``history_file``; None: only while this runs."""
        self._say = say
        self._hint = FormattedText([("ansibrightblack", _PLACEHOLDER)])
        self._editing = False
        self._session: PromptSession[str] = PromptSession(
            ">>> ",
            completer=completer,
            complete_style=CompleteStyle.READLINE_LIKE,
            complete_while_typing=False,
            history=_open_history(history_file, say),
            key_bindings=self._keys(),
            multiline=True,
            prompt_continuation=lambda _, __, wrapped: "" if wrapped else "... ",
            tempfile_suffix=".md",
            placeholder=lambda: FormattedText() if get_app().is_done else self._hint,
            input=input,
            output=output,
        )

    def ask(self, prefill: str = "") -> str | None:
        """What is typed, without quotes around several lines; None: leave.

        ``prefill`` stands there already; Ctrl-C then gives "".
        """
        warned = False
        self._editing = bool(prefill)
        while True:
            try:
                text = self._session.prompt(default=prefill)
            except EOFError:
                return None
            except KeyboardInterrupt:
                if warned:
                    return None
                self._say(_LEAVE_HINT)
                warned = True
                continue
            self._hint = FormattedText()  # it was understood
            return unquoted(text)

    def give_up(self, error: BaseException) -> None:
        """End `ask` with an exception; may be called by a signal's handler."""
        app = self._session.app

        def leave() -> None:
            if app.is_running and not app.is_done:
                app.exit(exception=error)

        if not app.is_running or app.loop is None:
            raise error
        app.loop.call_soon_threadsafe(leave)  # raised here, it would meet the event loop's inside

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            if is_open(event.current_buffer.text):
                event.current_buffer.insert_text("\n")
            else:
                event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if self._editing:
                event.app.exit(result="")
            elif event.current_buffer.text:
                event.current_buffer.save_to_undo_stack()  # Ctrl-_ brings it back
                event.current_buffer.text = ""
            else:
                event.app.exit(exception=KeyboardInterrupt)

        @keys.add("c-g")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.open_in_editor()

        return keys


def _open_history(path: Path | None, say: Callable[[str], None]) -> History:
    """A file that only the user can read; where there can be none, memory."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        say(f"note: {path}: {problem}: what you type is not kept")
        return InMemoryHistory()
    return FileHistory(str(path))
