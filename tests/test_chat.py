"""``bitinfer chat`` as a program: on a terminal, with piped input, and what it keeps."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from test_cli import ENVIRONMENT, assert_one_line_error, run_inside

from bitinfer.history import History

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals")

CHAT = "from bitinfer.cli import main; main(['chat', *{!r}], prog_name='bitinfer')"
LONG = ("--max-tokens", "900", "--logit-bias", "2=-inf")  # never the end token, so 900 of them
SLOW = {"BITINFER_ISA": "scalar"}  # a second for these, so that a key is pressed before the end


@pytest.fixture
def terminal(tmp_path):
    from emulator import Program

    programs = []

    def start(*arguments: str, columns: int = 80, lines: int = 24, **environment: str) -> Program:
        kept = {"BITINFER_HISTORY": "true", "BITINFER_HISTORY_FILE": str(tmp_path / "a" / "h.db")}
        values = {**ENVIRONMENT, "TERM": "xterm-256color", **kept, **environment}
        program = Program(CHAT.format(arguments), values, columns, lines)
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.__exit__()


@pytest.fixture
def saved(tmp_path):
    """Messages of the latest conversation that the program kept."""

    def read() -> list[tuple[str, str]]:
        with History.open(tmp_path / "a" / "h.db") as history:
            return [(m.role, m.content) for m in history.messages(history.latest().id)]

    return read


def test_session_in_a_terminal(terminal, saved, tmp_path) -> None:
    one = terminal("--temperature", "0")
    assert "tales-14m" in one.wait_for_prompt(1)
    one.type("What color is the sky?\r")
    assert "\nThe sky is blue.\n\n>>>" in one.wait_for_prompt(2)
    one.type("/halp\r")
    assert "unknown command /halp: did you mean /help?" in one.wait_for_prompt(3)
    one.type("/set temperature 200\r")
    assert "expected a number from 0 to 100, got 200" in one.wait_for_prompt(4)
    one.type("/bye\r")
    assert one.exit_code() == 0
    assert one.text()[-1] == ">>> /bye"
    assert saved() == [("user", "What color is the sky?"), ("assistant", "The sky is blue.")]
    folder = tmp_path / "a"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def begin_story(program) -> None:
    """Ask for a long reply, and wait until some words are there."""
    program.wait_for_prompt(1)
    program.type("Tell me a story\r")
    program.wait_for(r">>> Tell me a story\n(\S+ ){4}")


def test_ctrl_c_stops_the_reply_clears_the_line_and_leaves(terminal, saved) -> None:
    one = terminal(*LONG, **SLOW)
    begin_story(one)
    one.type("\x03")
    assert "\n[stopped]\n" in one.wait_for_prompt(2)
    assert [role for role, _ in saved()] == ["user", "assistant"]
    one.type("half a question")
    one.wait_for("half a question$")
    one.type("\x03")
    one.wait_for_prompt(2)
    one.type("\x03")
    assert "Ctrl-C again, Ctrl-D or /bye to leave" in one.wait_for_prompt(3)
    one.type("\x03")
    assert one.exit_code() == 0


def test_ctrl_d_leaves(terminal) -> None:
    one = terminal()
    one.wait_for_prompt(1)
    one.type("\x04")
    assert one.exit_code() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_end_from_outside_keeps_what_was_said(number, terminal, saved) -> None:
    one = terminal(*LONG, **SLOW)
    begin_story(one)
    os.kill(one.process.pid, number)
    assert one.exit_code() == 128 + number
    assert b"Traceback" not in one.raw
    assert b"error" not in one.raw
    assert [role for role, _ in saved()] == ["user", "assistant"]
    assert " ".join(saved()[1][1].split()) in " ".join(one.text())


def test_closed_window_keeps_what_was_said(terminal, saved) -> None:
    one = terminal(*LONG, **SLOW)
    begin_story(one)
    assert one.hang_up() in (1, 128 + signal.SIGHUP)  # by which it hears of it first
    assert [role for role, _ in saved()] == ["user", "assistant"]
    assert len(saved()[1][1].split()) >= 4


def test_end_from_outside_at_the_prompt_is_silent(terminal) -> None:
    one = terminal()
    one.wait_for_prompt(1)
    os.kill(one.process.pid, signal.SIGTERM)
    assert one.exit_code() == 128 + signal.SIGTERM
    assert b"Traceback" not in one.raw


def test_what_is_typed_during_a_reply_waits_for_the_prompt(terminal) -> None:
    one = terminal(*LONG, **SLOW)
    begin_story(one)
    one.type("Xq7 next")  # which no story says
    text = one.wait_for(r">>> Xq7 next\Z")
    assert text.count("Xq7 next") == 1


def test_continue_shows_where_it_was_and_goes_on(terminal, saved) -> None:
    for arguments, prompts in (((), 1), (("--continue",), 2)):
        one = terminal("--temperature", "0", *arguments)
        one.wait_for_prompt(prompts)
        one.type("What color is the sky?\r")
        one.wait_for_prompt(prompts + 1)
        one.type("\x04")
        assert one.exit_code() == 0
    assert [role for role, _ in saved()] == ["user", "assistant"] * 2
    text = "\n".join(one.text())
    assert "\nWhat color is the sky? (2 messages)\n>>> What color is the sky?\nThe sky is" in text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--max-tokens", "5"),
            '[cut at max_tokens 5: ask "go on", or /set max_tokens and /retry]',
        ),
        (("--context-length", "40"), "[the context of 40 tokens is full: /clear, or see"),
    ],
)
def test_reply_that_was_cut_says_so_and_how_to_go_on(options, line, terminal) -> None:
    one = terminal("--temperature", "0", *options)
    one.wait_for_prompt(1)
    one.type("Tell me a story\r")
    assert f"\n{line}" in one.wait_for_prompt(2)


def test_no_history_leaves_no_file(terminal, tmp_path) -> None:
    one = terminal("--no-history", "--temperature", "0")
    one.wait_for_prompt(1)
    one.type("Hi\r")
    one.wait_for_prompt(2)
    one.type("/bye\r")
    assert one.exit_code() == 0
    assert list(tmp_path.iterdir()) == []


def test_chat_goes_on_with_a_damaged_history(terminal, saved, tmp_path) -> None:
    path = tmp_path / "a" / "h.db"
    path.parent.mkdir()
    path.write_text("no database " * 99)
    one = terminal("--temperature", "0")
    assert "is damaged" in " ".join(one.wait_for_prompt(1).split())
    one.type("What color is the sky?\r")
    one.wait_for_prompt(2)
    assert len(saved()) == 2


def test_chat_goes_on_without_the_history_of_a_newer_version(terminal, tmp_path) -> None:
    path = tmp_path / "a" / "h.db"
    History.open(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")
    one = terminal("--temperature", "0")
    assert "update bitinfer" in " ".join(one.wait_for_prompt(1).split())
    one.type("What color is the sky?\r")
    assert "The sky is blue." in one.wait_for_prompt(2)


@pytest.mark.parametrize("columns", [20, 80])
def test_words_stay_whole_in_a_narrow_terminal(columns, terminal) -> None:
    one = terminal("--temperature", "0", "--stats", columns=columns)
    one.wait_for_prompt(1)
    one.type("What color is the sky?\r")
    rows = one.wait_for_prompt(2).splitlines()
    words = " ".join(rows).split()
    assert {"parameters,", "questions.", "blue.", "first", "context", "memory"} <= {*words}


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_replies_are_plain_where_that_is_wanted(environment, terminal) -> None:
    one = terminal("--temperature", "0", **environment)
    one.wait_for_prompt(1)
    one.type("Tell me a story\r")
    one.wait_for_prompt(2)
    start = one.raw.index(b"Once upon")
    reply = one.raw[start : one.raw.index(b"\n", start)]
    assert len(reply) > 40
    assert b"\x1b" not in reply


def test_other_character_sets_are_no_error(terminal) -> None:
    one = terminal("--temperature", "0", LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    one.wait_for_prompt(1)
    one.type("What color is the sky?\r")
    assert "The sky is blue." in one.wait_for_prompt(2)
    one.type("/bye\r")
    assert one.exit_code() == 0


def test_piped_input_gets_one_reply_per_line() -> None:
    questions = "What color is the sky?\n\nHi\n/clear\nWhat color is the sky?\n/bye\nHi\n"
    done = run_inside("chat", "--temperature", 0, "--max-tokens", 20, stdin=questions)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) == 3
    assert lines[0] == lines[2]
    assert "\x1b" not in done.stdout


def test_piped_commands_speak_on_stderr_and_go_on() -> None:
    script = '/nope\n/set temperature 0\n/set top_p 3\n"""\nWhat color\nis the sky?\n"""\n/stats\n'
    done = run_inside("chat", stdin=script)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "unknown command /nope" in done.stderr
    assert "top_p: expected a number from 0 to 1, got 3" in done.stderr
    assert "first token" in done.stderr


def test_piped_questions_can_be_saved(tmp_path) -> None:
    path = tmp_path / "a file.json"
    run_inside("chat", "--temperature", 0, stdin=f"What color is the sky?\n/save {path}\n")
    messages = json.loads(Path(path).read_text())["messages"]
    assert [m["content"] for m in messages] == ["What color is the sky?", "The sky is blue."]


def test_a_session_takes_up_what_was_read(tmp_path) -> None:
    options = ("--temperature", 0, "--stats", "--session", tmp_path / "kept")
    story = '"""\n' + "The dog ran home. " * 20 + '\n"""\n'
    first, again = (run_inside("chat", *options, stdin=story) for _ in range(2))
    assert first.stdout == again.stdout
    assert "prompt 1 token," not in first.stderr
    assert "prompt 1 token," in again.stderr
    (tmp_path / "kept").write_bytes(b"no session")
    assert_one_line_error(run_inside("chat", *options, stdin=story), str(tmp_path / "kept"))
    nowhere = run_inside("chat", "--session", tmp_path / "none" / "kept", stdin=story)
    assert_one_line_error(nowhere, "expected a file in a folder that is there")


def test_same_seed_gives_the_same_conversation() -> None:
    texts = [run_inside("chat", "--seed", 4, stdin="Hi\nTell me more\n").stdout for _ in range(2)]
    assert texts[0] == texts[1]


def test_continue_needs_a_history_and_a_number(tmp_path) -> None:
    path = tmp_path / "h.db"
    assert_one_line_error(run_inside("chat", "--continue", "--no-history"), "--no-history", code=2)
    options = ("--history", "--history-file", path)
    assert_one_line_error(run_inside("chat", "--continue", "x", *options), "number", "'x'", code=2)
    assert_one_line_error(run_inside("chat", "--continue", "7", *options), "number", "7")
    done = run_inside("chat", *options, "--continue", stdin="")
    assert (done.returncode, done.stdout) == (0, "")
    assert "new conversation" in done.stderr
