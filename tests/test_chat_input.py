"""The line at which one types: keys pressed through prompt_toolkit's own pipe input."""

from __future__ import annotations

import sys

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from bitinfer.cli.chat.completer import CommandCompleter
from bitinfer.cli.chat.input import Prompt
from bitinfer.cli.chat.quotes import is_open, unquoted

PASTE = "\x1b[200~{}\x1b[201~"
ENTER, NEW_LINE, UP = "\r", "\x1b\r", "\x1b[A"
CTRL_C, CTRL_D, CTRL_G, UNDO = "\x03", "\x04", "\x07", "\x1f"


@pytest.fixture
def typed(tmp_path):
    """Presses keys; what `Prompt.ask` returns, as often as asked."""

    def press(keys: str, *prefills: str, file=None) -> tuple[list[str | None], list[str]]:
        said: list[str] = []
        with create_pipe_input() as pipe:
            prompt = Prompt(
                CommandCompleter(),
                history_file=file,
                say=said.append,
                input=pipe,
                output=DummyOutput(),
            )
            pipe.send_text(keys)
            return [prompt.ask(prefill) for prefill in prefills or [""]], said

    return press


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("Hi there" + ENTER, "Hi there"),
        ("a" + NEW_LINE + "b" + ENTER, "a\nb"),
        ('"""' + ENTER + "a" + ENTER + " b" + ENTER + '"""' + ENTER, "a\n b"),
        ('"""a' + ENTER + 'b"""' + ENTER, "a\nb"),
        (PASTE.format("a\nb\r\nc") + ENTER, "a\nb\nc"),
        ("/tem\t" + CTRL_C + "/und\t" + ENTER, "/undo"),
        ("/set xtc_p\t0.5" + ENTER, "/set xtc_probability 0.5"),
        ("oops" + CTRL_C + "Hi" + ENTER, "Hi"),
        ("oops" + CTRL_C + UNDO + ENTER, "oops"),
        (CTRL_C + "Hi" + ENTER, "Hi"),
        (ENTER, ""),
    ],
)
def test_keys(keys, text, typed) -> None:
    assert typed(keys)[0] == [text]


def test_ctrl_c_twice_at_an_empty_line_leaves() -> None:
    said: list[str] = []
    with create_pipe_input() as pipe:
        prompt = Prompt(
            CommandCompleter(), history_file=None, say=said.append, input=pipe, output=DummyOutput()
        )
        pipe.send_text(CTRL_C)
        prompt._say = lambda text: (said.append(text), pipe.send_text(CTRL_C))
        assert prompt.ask() is None
    assert said == ["Ctrl-C again, Ctrl-D or /bye to leave"]


def test_ctrl_d_at_an_empty_line_leaves(typed) -> None:
    assert typed(CTRL_D)[0] == [None]


def test_prefilled_text_can_be_changed_or_left(typed) -> None:
    assert typed("!" + ENTER, "old")[0] == ["old!"]
    assert typed(CTRL_C, "old")[0] == [""]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_ctrl_g_opens_the_editor(typed, tmp_path, monkeypatch) -> None:
    editor = tmp_path / "my editor"
    editor.write_text('#!/bin/sh\nprintf "two\\nlines\\n" >> "$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", f"'{editor}'")
    said: list[str] = []
    with create_pipe_input() as pipe:
        prompt = Prompt(
            CommandCompleter(), history_file=None, say=said.append, input=pipe, output=DummyOutput()
        )
        prompt._session.default_buffer.on_text_changed += lambda buffer: (
            pipe.send_text(ENTER) if "lines" in buffer.text else None
        )
        pipe.send_text("one " + CTRL_G)
        assert prompt.ask() == "one two\nlines"


def test_lines_are_kept_privately_from_one_session_to_the_next(typed, tmp_path) -> None:
    file = tmp_path / "new" / "typed.txt"
    typed("first" + ENTER + "a" + NEW_LINE + "b" + ENTER, "", "", file=file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)
    assert typed(UP + ENTER, file=file)[0] == ["a\nb"]
    assert typed(UP * 3 + ENTER, file=file)[0] == ["first"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_folder_that_cannot_be_written_is_said_and_no_error(typed, tmp_path) -> None:
    (tmp_path / "file").touch()
    texts, said = typed("Hi" + ENTER, file=tmp_path / "file" / "typed.txt")
    assert texts == ["Hi"]
    assert "what you type is not kept" in said[0]


def test_quotes_are_open_until_they_are_closed() -> None:
    assert is_open('"""') and is_open(' """a"') and is_open('"""a\nb')  # noqa: PT018
    assert not is_open("a") and not is_open('"""a"""') and not is_open('""""""')  # noqa: PT018
    assert unquoted('"""\n a\n"""') == " a"
    assert unquoted('"""/help"""') == "/help"
    assert unquoted(' "a" ') == '"a"'
