"""``bitinfer chat``: its session, its wrapping of lines, piped input, and a real terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings, strategies as st
from test_cli import ENVIRONMENT, run

from bitinfer.cli.chat import Session
from bitinfer.cli.text import WordWrap, printable, proper
from bitinfer.errors import ContextLengthError
from bitinfer.model import Model


@pytest.fixture(scope="module")
def model():
    with Model.load("tales-6m", num_threads=1, context_length=128) as loaded:
        yield loaded


def session(model, **options) -> Session:
    return Session(model, None, {"temperature": 0, "max_tokens": 12, **options})


def test_conversation_is_kept_between_turns(model) -> None:
    talk = session(model)
    first = "".join(talk.reply("What color is the sky?"))
    second = "".join(talk.reply("Hi"))
    history = [
        {"role": "user", "content": "What color is the sky?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Hi"},
    ]
    assert second == model.chat(history, temperature=0, max_tokens=12).text
    talk.clear()
    assert "".join(talk.reply("What color is the sky?")) == first


def test_oldest_turns_are_dropped_with_one_line_of_notice(model, capsys) -> None:
    talk = session(model)
    notes = []
    for number in range(12):
        assert "".join(talk.reply(f"Question {number}: what is the color of the big sky?"))
        notes.append(capsys.readouterr().err)
    assert notes[0] == ""
    assert notes[-1].startswith("note: context is full: forgot the oldest ")
    assert all(note.count("\n") <= 1 for note in notes)
    assert talk._turns[0]["role"] == "user"  # dropped at the border of a turn


def test_system_instruction_is_never_dropped(model) -> None:
    talk = Session(model, "Be kind", {"temperature": 0, "max_tokens": 12})
    for _ in range(12):
        list(talk.reply("What is the color of the big sky today?"))
    assert talk._system == [{"role": "system", "content": "Be kind"}]


def test_question_longer_than_the_context_is_refused_and_forgotten(model) -> None:
    talk = session(model)
    with pytest.raises(ContextLengthError, match="at most 127 tokens"):
        list(talk.reply("word " * 300))
    assert talk._turns == []


def test_stopped_reply_stays_in_the_conversation(model) -> None:
    talk = session(model, max_tokens=40)
    pieces = talk.reply("Tell me a story")
    said = next(pieces)
    pieces.close()
    assert talk._turns[-1] == {"role": "assistant", "content": said}


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab 中\n👩", max_size=9), max_size=9), st.integers(2, 12))
def test_wrapping_changes_only_white_space_and_no_line_is_too_long(pieces, columns) -> None:
    wrap = WordWrap(columns)
    text = "".join([*(wrap.add(piece) for piece in pieces), wrap.finish()])
    whole = "".join(pieces)
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", whole)
    again = WordWrap(columns)
    assert "".join([*(again.add(character) for character in whole), again.finish()]) == text


def test_words_move_to_the_next_line_whole() -> None:
    wrap = WordWrap(10)
    assert wrap.add("one two three four") + wrap.finish() == "one two\nthree four"


def test_control_characters_are_not_printed() -> None:
    assert printable("a\x1b[31mb\x07\tc\n\x9b") == "a[31mb\tc\n"
    assert proper("a\udcff") == "a?"


def test_piped_input_gets_one_reply_per_line() -> None:
    questions = "What color is the sky?\n\nHi\n/clear\nWhat color is the sky?\n/bye\nHi\n"
    done = run("chat", "--temperature", 0, "--max-tokens", 20, stdin=questions)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) == 3
    assert lines[0] == lines[2]
    assert "\x1b" not in done.stdout


def test_same_seed_gives_the_same_conversation() -> None:
    texts = [run("chat", "--seed", 4, stdin="Hi\nTell me more\n").stdout for _ in range(2)]
    assert texts[0] == texts[1]


class Terminal:
    """``bitinfer chat`` in a pseudo terminal of 80 columns."""

    def __init__(self, *arguments: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.fd, slave = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        script = (  # a session of its own, so that Ctrl-C is a signal to it
            "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "from bitinfer.cli import main; main(prog_name='bitinfer')"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "chat", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**ENVIRONMENT, "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """Read until ``pattern`` stands in what came since the last match."""
        import select

        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < until, f"{pattern!r} not in {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                data = os.read(self.fd, 4096).decode(errors="replace")
                if "\x1b[6n" in data:
                    self.type("\x1b[1;1R")  # where the cursor is, which prompt_toolkit asks
                self.seen += data
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def exit_code(self) -> int:
        return self.process.wait(timeout=30)


@pytest.fixture
def terminal():
    pytest.importorskip("pty")
    opened = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.process.kill()
        one.process.wait()
        os.close(one.fd)


def test_session_in_a_terminal(terminal) -> None:
    one = terminal("--temperature", "0")
    assert "tales-6m" in one.wait_for(">>>")
    one.type("What color is the sky?\r")
    one.wait_for("blue")
    one.wait_for(">>>")
    one.type("/help\r")
    one.wait_for("forget the conversation")
    one.wait_for(">>>")
    one.type("/bye\r")
    assert one.exit_code() == 0


def test_ctrl_c_stops_the_reply_and_ctrl_d_leaves(terminal) -> None:
    one = terminal("--temperature", "1.5", "--max-tokens", "900")
    one.wait_for(">>>")
    for _ in range(9):  # a reply can end by itself before the key comes
        one.type("Tell me a long story\r")
        one.wait_for(r"story[^\n]*\n.*\w+ \w+")
        one.type("\x03")
        if "[stopped]" in one.wait_for(">>>"):
            break
    else:
        pytest.fail("no reply was stopped")
    one.type("\x04")
    assert one.exit_code() == 0
