"""Chat messages to text by a model's own Jinja template, as data from a stranger.

The template runs in a child process (chat_template_worker.py) with limits on memory and time, for
Jinja's sandbox bounds neither. Text from users is marked so that it cannot become a control token.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bitinfer import chat_template_worker as worker
from bitinfer.errors import TokenizerError
from bitinfer.json_file import impostor, read_json_object, shown

CPU_LIMIT_S = 2.0  # per rendering; real templates take milliseconds
WALL_LIMIT_S = 10.0  # a busy machine gets more time than work
START_LIMIT_S = 60.0  # starting Python on a slow disk
MEMORY_LIMIT_BYTES = 512 << 20
MOST_CHARS = 4 << 20

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_MARKERS = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))  # private use: in no normal text

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation: ``marker`` stands in each control token that a message holds."""

    text: str
    marker: str

    @property
    def plain(self) -> str:
        """The text as the template's author would see it."""
        return self.text.replace(self.marker, "")


class ChatTemplate:
    """A chat template and the process that renders it; safe to share between threads.

    The process starts with the first rendering and ends with ``close``, with this process, or with
    a template that exceeds the limits; the next rendering then starts another.
    """

    def __init__(
        self, source: str, *, cpu_limit_s: float = CPU_LIMIT_S, wall_limit_s: float = WALL_LIMIT_S
    ) -> None:
        self.source = source
        self._cpu_limit_s = cpu_limit_s
        self._wall_limit_s = wall_limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """The template of a model folder; None where the model has none.

        chat_template.jinja comes before ``chat_template`` of tokenizer_config.json, which is a
        string or a list of named ones, of which "default" is taken.

        Raises:
            TokenizerError: a file is unreadable or holds something else.
        """
        path = folder / "chat_template.jinja"
        where = f"{path.name} in {folder}"
        try:
            source = path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            source = _from_settings(folder)
        except UnicodeDecodeError:
            raise TokenizerError(f"{where}: expected UTF-8 text, got other bytes") from None
        except OSError as cause:
            raise TokenizerError(f"{where}: cannot be read: {cause.strerror}") from None
        if source and (found := impostor(source[:64].encode())) is not None:
            raise TokenizerError(f"{where}: expected a template, got {found[0]}: {found[1]}")
        return cls(source) if source else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        control_tokens: Sequence[str] = (),
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """Render a conversation.

        Args:
            messages: Dicts with "role" and "content", as chat APIs have them.
            control_tokens: Texts that must not take effect where they stand in a message.
            add_generation_prompt: End with what opens the assistant's reply.
            variables: More names for the template, such as bos_token.
            given: The same from whoever wrote the messages, such as tools: control tokens in them
                do not take effect either.

        Raises:
            ValueError: ``messages`` is empty or one of them is malformed.
            TokenizerError: the template is in error, refuses the messages, or exceeds a limit.
        """
        check_messages(messages)
        theirs = {**(given or {}), "messages": list(messages)}
        marker = _unused_marker(self.source, theirs)
        defused = _defuse(theirs, tuple(t for t in control_tokens if t), marker)
        request = {
            "template": self.source,
            "variables": {
                **defused,
                **(variables or {}),
                "add_generation_prompt": add_generation_prompt,
            },
            "cpu_s": self._cpu_limit_s,
            "wall_s": self._wall_limit_s,
            "most_chars": MOST_CHARS,
        }
        with self._lock:
            answer = self._ask(request)
        if "error" in answer:
            raise TokenizerError(f"chat template: {shown(answer['error'], 320)}")
        return Rendered(answer["text"], marker)

    def close(self) -> None:
        """End the process; the next rendering starts it again."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer; kill the process at the limit."""
        process = self._running()
        try:
            answer = _exchange(process, request, self._wall_limit_s)
        except BaseException:  # Ctrl-C too: a later answer must not meet another question
            self._stop()
            raise
        if answer is None:
            self._stop()
            raise TokenizerError(
                f"chat template: rendering exceeded {self._cpu_limit_s:g} s of CPU, "
                f"{self._wall_limit_s:g} s or {MEMORY_LIMIT_BYTES >> 20} MB: it was stopped; "
                "check the model's template"
            )
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        """The helper process, started if there is none (or if this process is a fork)."""
        if self._owner != os.getpid():
            self._owner, self._process = os.getpid(), None
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        # -I: no PYTHON* variable and no current folder reaches it; sys.path goes by the first frame
        command = [sys.executable or "python3", "-I", str(Path(worker.__file__).resolve())]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and file)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        except OSError as cause:
            raise TokenizerError(
                f"chat template: helper process cannot be started: {cause.strerror}"
            ) from None
        path = [str(Path(p).absolute()) for p in sys.path if p]
        hello = {"path": path, "memory_bytes": MEMORY_LIMIT_BYTES}
        try:
            ready = _exchange(self._process, hello, START_LIMIT_S)
        except BaseException:
            self._stop()
            raise
        if ready is None:
            self._stop()
            raise TokenizerError(
                "chat template: helper process ended at its start: "
                "check that this Python can import jinja2"
            )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was buffered for a dead process
                    continue

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None and self._owner == os.getpid():
            self._stop()


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what no template could use.

    Raises:
        ValueError: ``messages`` is empty, or one of them has no proper role or content.
    """
    if isinstance(messages, str | Mapping) or not messages:
        raise ValueError("messages: expected a list with at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"messages[{number}]: expected a dict with role and content")
        role = message.get("role")
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise ValueError(
                f"messages[{number}]: expected a role such as user, got {shown(repr(role))}"
            )
        if not isinstance(message.get("content"), str):
            got = type(message.get("content")).__name__
            raise ValueError(f"messages[{number}]: expected content as a string, got {got}")


def _from_settings(folder: Path) -> str:
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return ""
    found = read_json_object(path, TokenizerError).get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default", next(iter(named.values()), None))
    if found is not None and not isinstance(found, str):
        raise TokenizerError(
            f"tokenizer_config.json in {folder}: chat_template: expected a string or a list of "
            f"named ones, got {type(found).__name__}"
        )
    return found or ""


def _exchange(
    process: subprocess.Popen[bytes], request: dict[str, Any], limit_s: float
) -> dict[str, Any] | None:
    """Answer of the process; None if it died, or was killed after ``limit_s``."""
    assert process.stdin is not None
    assert process.stdout is not None
    alarm = threading.Timer(limit_s, process.kill)
    alarm.daemon = True
    alarm.start()
    try:
        worker.write_frame(process.stdin, request)  # type: ignore[arg-type]
        return worker.read_frame(process.stdout)  # type: ignore[arg-type]
    except OSError:  # it died with the request half written
        return None
    finally:
        alarm.cancel()


def _unused_marker(source: str, values: Mapping[str, Any]) -> str:
    """A character that stands neither in the template nor in the values."""
    used = set(source)
    pending: list[Any] = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            used.update(value)
        elif isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            pending += value
    return next(chr(code) for code in _MARKERS if chr(code) not in used)


def _defuse(value: Any, control_tokens: tuple[str, ...], marker: str) -> Any:
    """``value`` with ``marker`` in each control token of its texts, after the first character."""
    if isinstance(value, str):
        cuts = [0, *(start + 1 for start in _starts_of(control_tokens, value)), len(value)]
        return marker.join(value[a:b] for a, b in pairwise(cuts))
    if isinstance(value, Mapping):
        return {key: _defuse(part, control_tokens, marker) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_defuse(part, control_tokens, marker) for part in value]
    return value


def _starts_of(control_tokens: tuple[str, ...], text: str) -> list[int]:
    """Where a control token begins in ``text``, or ``text`` ends within one.

    The latter, since the template's next characters might complete it.
    """
    if not control_tokens:
        return []
    firsts = re.compile(f"[{re.escape(''.join({token[0] for token in control_tokens}))}]")
    end = len(text) - max(map(len, control_tokens))
    return [
        start
        for start in (match.start() for match in firsts.finditer(text))
        if text.startswith(control_tokens, start)
        or (start > end and any(token.startswith(text[start:]) for token in control_tokens))
    ]
