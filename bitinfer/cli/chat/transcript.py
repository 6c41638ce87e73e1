"""Conversations as files: JSON that can be loaded again, Markdown to read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from bitinfer.cli.chat.session import Turn
from bitinfer.errors import BitinferError
from bitinfer.json_file import MAX_JSON_BYTES, parse_json_object, shown

_ROLES = ("user", "assistant")
SUFFIXES = (".md", ".json")


class TranscriptError(BitinferError):
    """A file is not a conversation, or cannot be written."""


def to_json(model: str, system: str, turns: Sequence[Turn]) -> str:
    """One object with the messages as chat APIs have them."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    facts = {"model": model, "system": system or None, "messages": messages}
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def to_markdown(model: str, system: str, turns: Sequence[Turn]) -> str:
    """Who spoke as headings, and what was said as it is."""
    title = next((" ".join(turn.content.split())[:60] for turn in turns), "Conversation")
    today = datetime.now(timezone.utc).date().isoformat()
    parts = [f"# {title}", f"{model}, {today}"]
    parts += ["## System", system] if system else []
    for turn in turns:
        parts += [f"## {turn.role.capitalize()}", turn.content.strip()]
    return "\n\n".join(parts) + "\n"


def read(path: Path) -> tuple[str, list[Turn]]:
    """The system text and turns of a file that `to_json` or another program wrote.

    Raises:
        TranscriptError: it cannot be read, or is something else; the message says where.
    """
    found = parse_json_object(_read_bytes(path), path.name, TranscriptError)
    system, messages = found.get("system") or "", found.get("messages")
    if not isinstance(messages, list) or not isinstance(system, str):
        raise TranscriptError(
            f'{path.name}: expected {{"messages": [...]}} with an optional system'
        )
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if number == 0 and role == "system" and isinstance(content, str):
            system = content
            continue
        expected = _ROLES[len(turns) % 2]
        if role != expected or not isinstance(content, str):
            raise TranscriptError(
                f"{path.name}: messages[{number}]: expected role {expected!r} with content as a "
                f"string, got {shown(repr(message))}"
            )
        turns.append(Turn(role, content))
    return system, turns


def write(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file that only the user can read; all of it, or the old one stays.

    Raises:
        TranscriptError: it is there already, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise TranscriptError(f"{path}: there is one already: -f before the name overwrites it")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.touch(mode=0o600)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise TranscriptError(f"{path}: {_problem(error)}") from None


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise TranscriptError(f"{path}: expected a file with a conversation")
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise TranscriptError(f"{path}: {_problem(error)}") from None
    if len(text) > MAX_JSON_BYTES:
        raise TranscriptError(f"{path}: expected at most {MAX_JSON_BYTES} bytes, got more")
    return text


def _problem(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
