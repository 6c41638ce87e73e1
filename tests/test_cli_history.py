"""``bitinfer history``: tables on a terminal, lines in a pipe, JSON for programs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest
from terminal import Terminal
from test_cli import ENVIRONMENT, assert_one_line_error, run_inside

from bitinfer.history import History


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A history of two conversations."""
    path = tmp_path / "history.db"
    with History.open(path) as history:
        for question, answer in (("How do I bake bread?", "With\ttime."), ("你好\x1b[2J", "Hi")):
            number = history.new_conversation(model="/models/tales", system="Be brief.")
            asked = history.add_message(number, "user", question)
            history.finish(history.add_message(number, "assistant", answer, asked), "stop")
    monkeypatch.setenv("BITINFER_HISTORY_FILE", str(path))
    return path


def on_terminal(file, *arguments: str, columns: int = 80, **environment: str) -> str:
    command = [sys.executable, "-m", "bitinfer", "history", *arguments]
    variables = {**ENVIRONMENT, "BITINFER_HISTORY_FILE": str(file), **environment}
    with Terminal(command, variables, columns) as terminal:
        code, shown = terminal.finish()
    assert code == 0, shown
    return shown


def test_list_in_a_pipe_has_tabs(file) -> None:
    lines = run_inside("history", "list").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["2", "1"]
    number, changed, title, messages, model = lines[1].split("\t")
    assert (number, title, messages) == ("1", "How do I bake bread?", "2")
    assert (model, changed[:2], changed[-1]) == ("/models/tales", "20", "Z")


def test_list_as_json(file) -> None:
    found = json.loads(run_inside("history", "list", "--json", "-n", 1).stdout)
    assert [(c["id"], c["num_messages"], c["system"]) for c in found] == [(2, 2, "Be brief.")]


@pytest.mark.parametrize("columns", [20, 50, 80, 200])
def test_list_on_a_terminal_is_as_wide_as_it(file, columns) -> None:
    lines = on_terminal(file, "list", columns=columns, NO_COLOR="1", TERM="dumb").splitlines()
    assert all(len(line) <= columns for line in lines)
    assert "\x1b" not in "".join(lines)
    assert any("1  How do I" in line or "How do I bake bread?" in line for line in lines)
    assert ("number" in lines[0]) == (columns > 20)
    assert ("/models/tales" in lines[-1]) == (columns >= 80)


def test_search_finds_and_tells_the_number(file) -> None:
    number, _, text, role = run_inside("history", "search", "BREAD").stdout.rstrip().split("\t")
    assert (number, text, role) == ("1", "How do I bake bread?", "user")
    assert json.loads(run_inside("history", "search", "time", "--json").stdout)[0]["role"] == (
        "assistant"
    )
    nothing = run_inside("history", "search", "zebra")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no message has 'zebra'" in nothing.stderr


def test_show_is_markdown_in_a_pipe_and_text_on_a_terminal(file) -> None:
    piped = run_inside("history", "show", 1).stdout
    assert piped.startswith("# How do I bake bread?\n")
    assert "## Assistant\n\nWith\ttime.\n" in piped
    shown = on_terminal(file, "show")  # the latest
    assert ">>> 你好[2J" in shown  # the escape character is gone
    assert "\x1b[2J" not in shown


def test_export_writes_what_the_name_says(file, tmp_path) -> None:
    target = tmp_path / "a.json"
    assert run_inside("history", "export", 1, "-o", target).returncode == 0
    assert json.loads(target.read_text())["messages"][0]["content"] == "How do I bake bread?"
    assert run_inside("history", "export", 1).stdout.startswith("# How do I bake bread?\n")
    assert json.loads(run_inside("history", "export", 1, "--format", "json").stdout)["id"] == 1
    assert_one_line_error(run_inside("history", "export", 1, "-o", tmp_path / "no" / "x"), "no/x")


def test_rm_asks_on_a_terminal(file) -> None:
    command = [sys.executable, "-m", "bitinfer", "history", "rm", "1"]
    variables = {**ENVIRONMENT, "BITINFER_HISTORY_FILE": str(file)}
    for answer, left in (("n\n", 2), ("y\n", 1)):
        with Terminal(command, variables) as terminal:
            terminal.wait_for("Remove 1 (How do I bake bread?)? [y/N]:")
            terminal.type(answer)
            assert terminal.finish()[0] == 0
        with History.open(file) as history:
            assert len(history.list()) == left


def test_rm_without_a_terminal_needs_yes(file) -> None:
    assert_one_line_error(run_inside("history", "rm", 1), "--yes", code=2)
    assert_one_line_error(run_inside("history", "rm"), "NUMBERS", "--all", code=2)
    assert_one_line_error(run_inside("history", "rm", 1, 9, "--yes"), "got 9")
    with History.open(file) as history:
        assert len(history.list()) == 2
    done = run_inside("history", "rm", 1, 1, "--yes")
    assert (done.returncode, done.stderr) == (0, "removed 1 conversation\n")
    assert "removed 1 conversation" in run_inside("history", "rm", "--all", "-y").stderr
    with History.open(file) as history:
        assert history.list() == ()


def test_an_empty_history_says_how_to_begin(tmp_path) -> None:
    place = ("--history-file", tmp_path / "new.db")
    done = run_inside("history", "list", *place)
    assert (done.returncode, done.stdout) == (0, "")
    assert "bitinfer chat" in done.stderr
    assert json.loads(run_inside("history", "list", "--json", *place).stdout) == []
    assert_one_line_error(run_inside("history", "show", *place), "bitinfer chat")


def test_wrong_numbers_and_files_are_one_line_errors(file) -> None:
    assert_one_line_error(run_inside("history", "show", 99), "number of a conversation", "99")
    assert_one_line_error(run_inside("history", "show", "x"), "whole number", "x", code=2)
    other = sqlite3.connect(file)
    other.execute("PRAGMA user_version = 9")
    other.close()
    assert_one_line_error(run_inside("history", "list"), "version", "9", "update bitinfer")


def test_a_killed_chat_leaves_what_was_saved(tmp_path) -> None:
    file = tmp_path / "history.db"
    command = [sys.executable, "-m", "bitinfer", "chat", "--history", "--history-file", str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "--max-tokens", "900"], stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("Tell me a story\n")
        process.stdin.flush()
        shown = process.stdout.read(5)
        process.kill()
        shown += process.stdout.read()
    with History.open(file) as history:  # a warning of damage would fail the test
        question, *rest = history.messages(1)
        assert question.content == "Tell me a story"
        assert all(shown.startswith(reply.content) for reply in rest)
