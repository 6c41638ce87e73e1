"""How replies appear: thinking, markdown a few times a second, plain text, figures."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from chat_model import ScriptedModel, ScriptedStream
from emulator import Emulator
from rich.console import Console

from bitinfer.cli.chat.elements import THEME
from bitinfer.cli.chat.stats import resident_bytes, stats
from bitinfer.cli.chat.terminal import can_redraw
from bitinfer.cli.chat.view import MarkdownWriter, ReplyView

THOUGHT = ["<th", "ink>\nHm, *so*.", "\n</think>\n\n", "It is **blue**.\n"]


@pytest.fixture
def terminal(monkeypatch):
    """An emulated terminal, of a size that programs are told."""
    emulator = Emulator(40, 12)
    emulator.isatty = lambda: True
    emulator.encoding = "utf-8"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "12")
    return emulator


def show(terminal, pieces, **how: bool) -> None:
    with redirect_stdout(terminal):
        view = ReplyView(**{"live": True, "markdown": True, "thinking": True} | how)
        for piece in pieces:
            view.add(piece)
        view.finish()


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ({}, ["Hm, *so*.", "", "It is blue."]),
        ({"thinking": False}, ["It is blue."]),
        ({"markdown": False}, ["Hm, *so*.", "", "It is **blue**."]),
        ({"live": False}, ["<think>", "Hm, *so*.", "</think>", "", "It is **blue**."]),
        ({"live": False, "thinking": False}, ["It is **blue**."]),
    ],
)
def test_thinking_and_answer(how, rows, terminal) -> None:
    show(terminal, THOUGHT, **how)
    assert terminal.text() == rows
    if "live" in how:
        assert "\x1b" not in "".join(terminal.written)


def test_thinking_is_dimmed(terminal) -> None:
    show(terminal, THOUGHT)
    text = "".join(terminal.written)
    assert "\x1b[2mHm," in text
    assert "\x1b[1mblue" in text


def test_sign_of_life_until_something_is_shown(terminal) -> None:
    with redirect_stdout(terminal):
        view = ReplyView(live=True, markdown=True, thinking=False)
        assert terminal.text() == ["…"]
        view.add("<think>Hm")
        assert terminal.text() == ["thinking …"]
        view.add("</think>Yes")
        view.finish()
    assert terminal.text() == ["Yes"]


def test_reply_without_a_word_leaves_the_line_empty(terminal) -> None:
    show(terminal, [])
    assert terminal.text() == []


def test_reply_that_ends_within_its_thinking(terminal) -> None:
    show(terminal, ["<think>never", " closed"])
    assert terminal.text() == ["never closed"]


@pytest.mark.parametrize("live", [True, False])
def test_text_cannot_steer_the_terminal(live, terminal) -> None:
    title = terminal.screen.title
    show(terminal, ["a\x1b[2J\x1b]0;t", "itle\x07\x9b31mb\r\x08"], live=live)
    assert terminal.text() == ["a[2J]0;title31mb"]
    assert terminal.screen.title == title


def test_redraws_are_20_a_second_at_most() -> None:
    now_s = 0.0
    emulator = Emulator(40, 12)
    console = Console(file=io.StringIO(), force_terminal=True, theme=THEME)
    writer = MarkdownWriter(console, lambda: os.terminal_size((40, 12)), lambda: now_s)
    writer._region._file = emulator
    for _ in range(1000):  # a second of a fast model
        writer.add("word ")
        now_s += 0.001
    assert 10 <= len(emulator.written) <= 21
    writer.finish()
    assert " ".join(emulator.text()).split() == ["word"] * 1000


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
    ],
)
def test_where_replies_are_laid_out(environment, expected, terminal, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert can_redraw(terminal) is expected
    assert not can_redraw(io.StringIO())


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_figures_are_right_and_fit(columns) -> None:
    model = ScriptedModel()
    model.engine = type("Engine", (), {"num_threads": 2})
    stream = ScriptedStream(["a"] * 21, prompt_tokens=100, max_tokens=50)
    list(stream)
    text = stats(stream.completion, model, columns)
    assert max(map(len, text.splitlines())) <= max(columns, 27)  # a fact stays whole
    facts = text.replace("\n", " · ").split(" · ")
    assert facts[:4] == [
        "first token 0.50 s",
        "prompt 100 tokens, 200/s",  # 100 in half a second
        "reply 21 tokens, 80.0/s",  # 20 after the first in a quarter
        "context 121 of 1000",
    ]
    assert facts[4].startswith("memory ")
    assert facts[-1] == "2 threads"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the oracle is Linux's")
def test_memory_is_what_the_system_tells() -> None:
    status = Path("/proc/self/status").read_text()
    resident_kb = int(status.partition("VmRSS:")[2].split()[0])
    assert resident_bytes() == pytest.approx(resident_kb * 1024, rel=0.05)
