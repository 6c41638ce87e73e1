"""The slash commands: one table, from which come help, completion and "did you mean"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitinfer.cli.chat import transcript
from bitinfer.cli.chat.settings import NAMES, nearest
from bitinfer.cli.chat.title import title
from bitinfer.json_file import shown

if TYPE_CHECKING:
    from bitinfer.cli.chat.loop import Chat

_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)

_ASSIGNMENT = re.compile(r"([^\s=]+)\s*=?\s*(.*)", re.DOTALL)
_SHOWN = ("model", "template", "system", "settings")
_KEYS = """\
Enter          send; between \"\"\" and \"\"\" a new line
Alt-Enter      new line
Tab            complete a command, setting or file
Ctrl-G         write in $VISUAL or $EDITOR
Ctrl-C         stop the reply, and keep it; clear the line; twice: leave
Ctrl-D         leave"""


@dataclass(frozen=True)
class Command:
    """A slash command.

    Attributes:
        usage: What may follow its name.
        help: What it does, for ``/help``.
        run: Does it; gets what follows the name.
        words: What can follow its name; None: a file.
    """

    usage: str
    help: str
    run: Callable[[Chat, str], None]
    words: tuple[str, ...] | None = ()


class CommandError(ValueError):
    """A command that cannot be done, in one line."""


def is_command(text: str) -> bool:
    """Whether a line is meant as a command: ``/word``, but not a path or ``//``."""
    return _COMMAND.fullmatch(text) is not None


def run(chat: Chat, text: str) -> None:
    """Run a line that `is_command`.

    Raises:
        CommandError: there is no such command, or it cannot be done.
        ValueError: a setting is unknown or out of range.
        BitinferError: a file or the model is at fault.
    """
    found = _COMMAND.fullmatch(text)
    assert found is not None
    name = _ALIASES.get(found[1].lower(), found[1].lower())
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS)
        hint = hint.replace("mean ", "mean /") or "/help lists all"
        raise CommandError(f"unknown command /{found[1]}: {hint}")
    COMMANDS[name].run(chat, (found[2] or "").strip())


def help_lines() -> Iterator[str]:
    """The text of ``/help``."""
    width = max(len(f"{name} {command.usage}") for name, command in COMMANDS.items()) + 2
    for name, command in COMMANDS.items():
        yield f"/{f'{name} {command.usage}':{width}}{command.help}"
    yield ""
    yield from _KEYS.splitlines()


def _help(chat: Chat, _: str) -> None:
    chat.say("\n".join(help_lines()))


def _set(chat: Chat, text: str) -> None:
    settings = chat.session.settings
    found = _ASSIGNMENT.fullmatch(text)
    if found is None:
        chat.say("\n".join(settings.lines()))
        return
    name, value = found.groups()
    if value:
        settings.read(name, value)
    chat.say(settings.about(name))


def _show(chat: Chat, what: str) -> None:
    if what and what not in _SHOWN:
        choices = f"expected {', '.join(_SHOWN)} or nothing"
        raise CommandError(f"/show {what}: {nearest(what, _SHOWN) or choices}")
    session = chat.session
    model = session.model
    template = model.chat_template.source if model.chat_template else "none"
    settings = "\n".join(session.settings.lines())
    texts = (f"{title(model)}\n{model.path}", template, session.system or "none", settings)
    facts = dict(zip(_SHOWN, texts, strict=True))
    chat.say(facts[what] if what else "\n\n".join(f"[{k}]\n{v}" for k, v in facts.items()))


def _system(chat: Chat, text: str) -> None:
    session = chat.session
    if not text:
        chat.say(session.system or "none")
        return
    session.system = "" if text == "off" else text
    if session.system and session.ignores_system():
        chat.say("note: this model's chat template leaves the system text out")
    else:
        chat.say(f"system {'set' if session.system else 'off'}")


def _clear(chat: Chat, _: str) -> None:
    chat.session.clear()
    chat.say("a new conversation")


def _retry(chat: Chat, _: str) -> None:
    _need_question(chat)
    settings = chat.session.settings
    if settings["temperature"] == 0:
        chat.say("note: at temperature 0 each answer is the same; try /set temperature 0.7")
    chat.answer(chat.session.retry())


def _undo(chat: Chat, _: str) -> None:
    _need_question(chat)
    chat.say(f"forgot: {shown(chat.session.question, 60)}")
    chat.session.undo()


def _edit(chat: Chat, _: str) -> None:
    _need_question(chat)
    chat.edit_question()


def _stats(chat: Chat, text: str) -> None:
    if text:
        chat.session.settings.read("stats", text)
        chat.say(f"stats {text}")
    elif chat.session.completion is None:
        raise CommandError("/stats: no reply yet; /stats on shows figures below each")
    else:
        chat.say_stats()


def _save(chat: Chat, text: str) -> None:
    text = text or str(chat.file or "")
    chat.file = _write(chat, text, transcript.to_json, "/save: expected a name: /save FILE.json")


def _export(chat: Chat, text: str) -> None:
    makers = {".md": transcript.to_markdown, ".json": transcript.to_json}
    make = makers.get(Path(_unquoted(text)).suffix.lower())
    if make is None:
        raise CommandError("/export: expected a name that ends in .md or .json")
    _write(chat, text, make, "")


def _write(chat: Chat, text: str, make: Callable[..., str], usage: str) -> Path:
    """Write the conversation to the file that ``text`` names; ``-f`` before it overwrites."""
    session = chat.session
    name = text.removeprefix("-f ")
    if not name:
        raise CommandError(usage)
    if not session.turns:
        raise CommandError("nothing was said yet")
    path = _path(name)
    content = make(session.model.path.resolve().name, session.system, session.turns)
    transcript.write(path, content, overwrite=name != text or path == chat.file)
    chat.say(f"wrote {path}")
    return path


def _load(chat: Chat, text: str) -> None:
    if not text:
        raise CommandError("/load: expected a name: /load FILE.json")
    path = _path(text)
    session = chat.session
    session.system, turns = transcript.read(path)
    session.load(turns)
    chat.file = path
    chat.say(f"loaded {len(turns)} messages from {path}")


def _bye(chat: Chat, _: str) -> None:
    chat.leaving = True


def _need_question(chat: Chat) -> None:
    if chat.session.question is None:
        raise CommandError("no question was asked yet")


def _path(text: str) -> Path:
    return Path(_unquoted(text)).expanduser()


def _unquoted(text: str) -> str:
    """A file name, which may have spaces, without the quotes that a shell would need."""
    name = text.removeprefix("-f ").strip()
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"" else name


COMMANDS = {
    "help": Command("", "this list", _help),
    "set": Command(
        "[NAME [VALUE]]", 'show or change settings; VALUE "default" resets', _set, NAMES
    ),
    "show": Command("[WHAT]", "model, template, system or settings", _show, _SHOWN),
    "system": Command("[TEXT]", 'instruction before the conversation; "off" for none', _system),
    "clear": Command("", "begin another conversation", _clear),
    "retry": Command("", "another answer to the last question", _retry),
    "undo": Command("", "forget the last question and its answer", _undo),
    "edit": Command("", "change the last question and ask it anew", _edit),
    "stats": Command("[on|off]", "figures of the last reply, or below each", _stats, ("on", "off")),
    "save": Command("[FILE]", "write the conversation, to be loaded", _save, None),
    "load": Command("FILE", "take up a conversation that was saved", _load, None),
    "export": Command("FILE", "write the conversation as .md or .json", _export, None),
    "bye": Command("", "leave", _bye),
}
_ALIASES = {"exit": "bye", "quit": "bye", "q": "bye", "?": "help", "h": "help"}
