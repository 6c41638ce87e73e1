"""How a chat begins: its parts are put together, and it says what it is."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.chat.loop import Chat
from bitinfer.cli.chat.piped import PipedChat, read_stdin
from bitinfer.cli.chat.recorder import Recorder
from bitinfer.cli.chat.session import Session, Turn
from bitinfer.cli.chat.settings import NAMES, ChatSettings
from bitinfer.cli.chat.terminal import Interrupts
from bitinfer.cli.chat.title import hint, title
from bitinfer.errors import BitinferError
from bitinfer.session import check_folder

if TYPE_CHECKING:
    from bitinfer.history import Conversation, History
    from bitinfer.model import Model


def find_conversation(history: History, wanted: str) -> Conversation | None:
    """The conversation that ``--continue`` names; None if there is none at all.

    Raises:
        HistoryError: there is none of that number.
        UsageError: it is no number.
    """
    if wanted != "latest":
        if not wanted.isdecimal():
            raise click.UsageError(
                f"--continue: expected the number of a conversation, got {wanted!r}"
            )
        return history.conversation(int(wanted))
    found = history.latest()
    if found is None:
        click.echo("note: the history is empty: this is a new conversation", err=True)
    return found


@contextmanager
def kept_session(model: Model, path: Path) -> Iterator[None]:
    """Take up the KV cache of ``path`` if it is there, and write it at the end.

    Raises:
        SessionError: the file is damaged, or another model made it.
        ConfigError: its folder is not there.
        OSError: it cannot be written.
    """
    check_folder(path)
    if path.exists():
        model.load_session(path)
    try:
        yield
    finally:
        model.save_session(path)


def run_chat(
    model: Model,
    history: History | None,
    conversation: Conversation | None,
    options: Mapping[str, Any],
    *,
    system: str | None,
    typed: Path | None,
    interrupts: Interrupts,
) -> None:
    """Hold a conversation, on a terminal or with piped input.

    Args:
        model: What answers.
        history: Where it is kept; None: nowhere.
        conversation: One of the history, to go on with.
        options: Settings as the command line gives them; None for the default.
        system: Instruction that stands before it; None: that of ``conversation``, or none.
        typed: Where what is typed is kept; None: nowhere.
        interrupts: Hears Ctrl-C.
    """
    if not model.has_chat_template:
        model.encode_chat([{"role": "user", "content": ""}])  # says what to do
    kept = _kept_settings(conversation.settings) if conversation else {}
    settings = ChatSettings(model, {**kept, **_given(options)})

    def warn(text: str) -> None:
        chat.note(text)

    name = model.path.resolve().name
    session = Session(
        model,
        settings,
        Recorder(history, name, lambda: settings.sampling, warn),
        system=system or (conversation.system if conversation else None) or "",
        warn=warn,
        interruptible=interrupts.allowed,
    )
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    chat = _on_terminal(session, typed, interrupts) if on_terminal else _piped(session, interrupts)
    if conversation is not None and history is not None:
        messages = history.messages(conversation.id)
        session.resume(conversation.id, [Turn(m.role, m.content, m.id) for m in messages])
    warm_up = threading.Thread(target=_warm_up, args=(model,))
    if on_terminal:
        chat.say(f"{title(model)}\n{hint(model)}")
        if conversation is not None:
            chat.show_last(conversation.title)
        warm_up.start()
    try:
        chat.run()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise SystemExit(1) from None  # the terminal is gone: there is nobody to tell
    finally:
        if on_terminal:
            warm_up.join()  # it uses the model


def _warm_up(model: Model) -> None:
    """Do while the user types what the first reply would wait for."""
    import bitinfer.cli.chat.document  # noqa: F401

    with suppress(BitinferError):  # which the first question will meet
        model.encode_chat([{"role": "user", "content": "Hi"}])


def _piped(session: Session, interrupts: Interrupts) -> Chat:
    def ask(_: str) -> str | None:
        with interrupts.allowed():
            return read_stdin()

    return PipedChat(session, ask)


def _on_terminal(session: Session, typed: Path | None, interrupts: Interrupts) -> Chat:
    from bitinfer.cli.chat.completer import CommandCompleter
    from bitinfer.cli.chat.input import Prompt

    prompt = Prompt(CommandCompleter(), history_file=typed, say=click.echo)

    def ask(prefill: str) -> str | None:
        try:
            with interrupts.allowed(prompt.give_up):
                return prompt.ask(prefill)
        except KeyboardInterrupt:
            return ""  # it came just after the reply that it was meant for

    return Chat(session, ask)


def _kept_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that a conversation was held with (a bias has other keys in JSON)."""
    return {k: v for k, v in settings.items() if k in NAMES and isinstance(v, int | float)}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given; switches as ``/set`` names them."""
    words = {True: "on", False: "off"}
    named = {name: options[name] for name in NAMES}
    for name in ("markdown", "stats"):
        named[name] = words.get(named[name])
    return {name: value for name, value in named.items() if value is not None}
