"""Streamed markdown: its rows are those of the whole text, and a terminal shows just those."""

from __future__ import annotations

import io
import re

import pytest
from emulator import Emulator
from hypothesis import example, given, settings, strategies as st
from rich.console import Console

from bitinfer.cli.chat.document import MarkdownDocument
from bitinfer.cli.chat.elements import THEME, ChatMarkdown
from bitinfer.cli.chat.region import Region

ALL = 10_000  # more rows than any text here has
BLOCKS = [
    "# Title\n",
    "### With `code`\n",
    "A paragraph of some words that is longer than a row.\n",
    "Two lines\nwith *emphasis* and **strong words** that\nwrap.\n",
    "#no heading\n",
    "- one\n- two with `code`\n- three\n",
    "* star\n\n  loose\n\n* items\n",
    "1. first\n2. second\n   - nested\n     1. deep\n3. third\n",
    "9. nine\n10. ten\n",
    "```python\ndef f(x):\n\treturn x + 1  # a comment that is long enough to wrap\n```\n",
    "~~~\nplain ``` code\n\n\n~~~\n",
    "```\nopen to the end\n",
    "    indented code\n\n    goes on\n",
    "> quoted\ntext\n>\n> - list\n",
    "| a | b |\n|---|--:|\n| 1 | `two` |\n| x | longer cell |\n",
    "| no | table |\n",
    "---\n",
    "text\n---\n",
    "[link](http://a.b) <http://c.d> ![image](e.png) <b>tag</b> [red]x[/red] :smile:\n",
    "wide 中文字符 and 👩 emoji\n",
    "[ref]: http://x.y\n[ref]\n",
    "&#27;[31m &#13;x &amp; \\* \\`\n",
    "-\n",
    "\n",
    "a\n\n\n",
]


@st.composite
def texts(draw) -> str:
    blocks = draw(st.lists(st.sampled_from(BLOCKS), max_size=6))
    glue = draw(st.sampled_from(["", "\n"]))
    text = glue.join(blocks)
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@st.composite
def cut_texts(draw) -> list[str]:
    text = draw(texts())
    places = draw(st.lists(st.integers(0, len(text)), max_size=40).map(sorted))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def console(width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        file=file, force_terminal=True, width=width, theme=THEME, color_system="standard",
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip


def rows_at_once(text: str, width: int) -> list[str]:
    """What rich renders for the whole text."""
    out = console(width)
    with out.capture() as captured:
        out.print(ChatMarkdown(text))
    return captured.get().splitlines()


@settings(deadline=None)
@given(cut_texts(), st.sampled_from([20, 40, 80]))
@example(list("a\n#b\n- c\n-\n  d\n"), 20)
def test_rows_of_a_stream_are_those_of_the_whole_text(pieces, width) -> None:
    document = MarkdownDocument(console())
    rows = []
    for piece in pieces:
        document.add(piece)
        settled, working = document.take(width, ALL)
        rows += settled
        so_far = rows + working
    rows += document.finish(width)
    assert rows == rows_at_once("".join(pieces), width)
    assert pieces == [""] or so_far == rows


def shown_at_once(text: str, columns: int) -> list[str]:
    rows = rows_at_once(text, columns)
    terminal = Emulator(columns, len(rows) + 1)
    terminal.write("\n".join(rows))
    return terminal.text()


@settings(deadline=None, max_examples=60)
@given(cut_texts(), st.sampled_from([20, 40, 80]), st.integers(2, 12))
@example(["~~~\na\n\n\n~", "~~\n"], 20, 2)
def test_screen_shows_what_rich_renders_at_once(pieces, columns, lines) -> None:
    terminal = Emulator(columns, lines)
    terminal.write("before\n")
    document, region = MarkdownDocument(console()), Region(terminal, terminal.size)
    for piece in pieces:
        document.add(piece)
        region.write(*document.take(columns, lines - 1))
    region.write(document.finish(columns), [])
    assert terminal.text() == ["before", *shown_at_once("".join(pieces), columns)]


def test_blank_lines_at_the_end_of_code_are_shown() -> None:
    assert shown_at_once("```\n\na\n\n\n```\n", 20) == ["```", "", "a", "", "", "```"]


def test_code_taller_than_the_window_scrolls_away_while_it_is_written() -> None:
    terminal = Emulator(20, 6)
    document, region = MarkdownDocument(console()), Region(terminal, terminal.size)
    document.add("```\n")
    for number in range(30):
        document.add(f"line {number}\n")
        region.write(*document.take(20, 5))
    assert terminal.text() == ["```", *(f"line {number}" for number in range(30)), "```"]


def test_only_rows_that_changed_are_written_again() -> None:
    terminal = Emulator(80, 24)
    region = Region(terminal, terminal.size)
    region.write([], ["first", "second", "third"])
    terminal.written.clear()
    region.write([], ["first", "second", "third."])
    assert "first" not in terminal.written[0]
    assert "second" not in terminal.written[0]
    terminal.written.clear()
    region.write([], ["first", "second", "third."])
    assert terminal.written == []
    assert terminal.text() == ["first", "second", "third."]


def test_narrower_window_in_mid_reply() -> None:
    terminal = Emulator(40, 10)
    terminal.write("before\n")
    region = Region(terminal, terminal.size, reflows=False)
    region.write([], ["a" * 40, "b"])
    terminal.screen.resize(10, 20)
    region.write(["a" * 20], ["a" * 20, "b"])
    assert terminal.text() == ["before", "a" * 20, "a" * 20, "b"]


def test_rows_that_the_terminal_broke_anew_are_all_written_again() -> None:
    """A narrower terminal of the other kind: it broke the row of 40 in two, and one of 20 fits."""
    terminal = Emulator(40, 10)
    region = Region(terminal, terminal.size)
    region.write([], ["a" * 40, "b" * 20, "\x1b[1m" + "c" * 21])
    terminal.screen.resize(10, 20)
    terminal.written.clear()
    region.write([], ["d"])
    assert "\x1b[4A" in terminal.written[0]  # 2 + 1 + 2 rows, from the last to the first


@pytest.mark.parametrize(
    "text",
    [
        "&#27;]0;title&#7; &#155;31m &#x9b;2J &#13;over &#12;",
        "```&#27;[2J\ncode&#27;\n```\n",
        "```\nx\x1b[2J\x9b\x07\r\n```\n",
        "[text&#27;](http://x/&#27;) <http://x/\x1b> ![a\x1b](b\x07)",
        "| a\x1b[2J | &#27; |\n|---|---|\n| \x9d0;x\x9c | \x07 |\n",
        "- \x1b[A\n> \x1b[A\n",
        "\u202eevil\u2066",
    ],
)
def test_text_cannot_steer_the_terminal(text) -> None:
    document = MarkdownDocument(console())
    document.add(text)
    _, rows = document.take(80, ALL)
    shown = "\n".join([*rows, *document.finish(80)])
    assert re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\n", "").isprintable()


def test_boxes_and_bullets_are_ascii_where_nothing_else_can_be_shown() -> None:
    document = MarkdownDocument(console(encoding="ascii"))
    document.add("- a\n\n> b\n\n---\n\n| c | d |\n|---|---|\n| e | f |\n")
    assert "".join(document.finish(40)).isascii()
