"""``bitinfer chat``: a conversation on a terminal, or one reply per line of piped input."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from bitinfer.cli.options import load_model, loading_options, sampling_options
from bitinfer.cli.text import WordWrap, printable, proper

if TYPE_CHECKING:
    from bitinfer.model import Model

_HELP = """\
/clear   forget the conversation
/bye     leave (or Ctrl-D)
Ctrl-C   stop the reply; what was said so far is kept"""


@click.command()
@loading_options
@sampling_options
@click.option("--system", metavar="TEXT", help="Instruction that stands before the conversation")
def chat(system: str | None, **options: Any) -> None:
    """Chat with a model; piped input gets one reply per line."""
    with load_model(options) as model:
        session = Session(model, system, options)
        if sys.stdin.isatty() and sys.stdout.isatty():
            _converse(session, model)
        else:
            _answer_lines(session)


class Session:
    """The turns of a conversation, kept short enough for the context.

    The model keeps its cache between turns, so only what is new is run.
    """

    def __init__(self, model: Model, system: str | None, sampling: dict[str, Any]) -> None:
        self._model = model
        self._system = [{"role": "system", "content": system}] if system else []
        self._sampling = sampling
        self._turns: list[dict[str, str]] = []
        limit = sampling.get("max_tokens") or model.max_tokens
        self._room = min(limit, model.context_length // 4)  # left free for a reply

    def clear(self) -> None:
        """Forget all turns but the system's."""
        self._turns = []

    def reply(self, text: str) -> Generator[str, None, None]:
        """Yield the reply to ``text`` in pieces; on Ctrl-C the pieces so far are the reply."""
        self._turns.append({"role": "user", "content": text})
        told: list[str] = []
        try:
            self._drop_oldest()
            with self._model.chat_stream([*self._system, *self._turns], **self._sampling) as stream:
                for piece in stream:
                    told.append(piece)
                    yield piece
        finally:
            if told:
                self._turns.append({"role": "assistant", "content": "".join(told)})
            else:
                self._turns.pop()  # no answer: as if it had not been asked

    def _drop_oldest(self) -> None:
        """Drop whole turns from the front until a reply fits; the last question always stays."""
        most = self._model.context_length - self._room
        dropped = 0
        while len(self._turns) > 1 and self._tokens() > most:
            later = (n for n, t in enumerate(self._turns) if n > 0 and t["role"] == "user")
            del self._turns[: next(later)]
            dropped += 1
        if dropped:
            turns = "turn" if dropped == 1 else f"{dropped} turns"
            click.echo(f"note: context is full: forgot the oldest {turns}", err=True)

    def _tokens(self) -> int:
        return len(self._model.encode_chat([*self._system, *self._turns]))


def _answer_lines(session: Session) -> None:
    """Reply to each line of stdin: text only, no prompts, no escape codes."""
    for line in sys.stdin:
        text = line.strip()
        if text == "/bye":
            return
        if text == "/clear":
            session.clear()
        elif text:
            for piece in session.reply(proper(text)):
                click.echo(piece, nl=False)
                sys.stdout.flush()
            click.echo()


def _converse(session: Session, model: Model) -> None:
    """Prompt and reply until Ctrl-D or /bye."""
    from prompt_toolkit import PromptSession

    click.echo(f"{_title(model)}\nCtrl-C stops a reply, Ctrl-D or /bye leaves, /help tells more\n")
    prompt: PromptSession[str] = PromptSession()
    commands: dict[str, Callable[[], None]] = {
        "/help": lambda: click.echo(_HELP),
        "/clear": session.clear,
    }
    while True:
        try:
            text = prompt.prompt(">>> ").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        if text == "/bye":
            return
        if text in commands:
            commands[text]()
        elif text.startswith("/") and " " not in text:
            click.echo(f"unknown command {printable(text)}\n{_HELP}")
        elif text:
            _show_reply(session, proper(text))


def _show_reply(session: Session, text: str) -> None:
    """Print a reply wrapped at words; Ctrl-C ends it, an error does not end the session."""
    from bitinfer import BitinferError

    wrap = WordWrap(shutil.get_terminal_size().columns)
    try:
        with closing(session.reply(text)) as pieces:
            for piece in pieces:
                click.echo(wrap.add(printable(piece)), nl=False)
                sys.stdout.flush()
        click.echo(wrap.finish() + "\n")
    except KeyboardInterrupt:
        click.echo(wrap.finish() + " [stopped]\n")
    except BitinferError as error:
        click.echo(wrap.finish(), nl=False)
        click.echo(f"error: {error}\n", err=True)


def _title(model: Model) -> str:
    from bitinfer import active_isa
    from bitinfer.families.spec import num_parameters

    millions = num_parameters(model.engine.spec) / 1e6
    size = f"{millions:.1f} M" if millions < 1000 else f"{millions / 1000:.1f} G"
    threads = model.engine.num_threads
    return (
        f"{model.path.resolve().name}: {model.engine.spec['model_type']}, {size} parameters, "
        f"{model.engine.packing} on {active_isa()}, {threads} thread{'s' * (threads != 1)}"
    )
