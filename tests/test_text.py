"""Text for a terminal: wrapped at words, without control characters, proper Unicode."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings, strategies as st

from bitinfer.cli.text import WordWrap, printable, proper


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab 中\n👩", max_size=9), max_size=9), st.integers(2, 12))
def test_wrapping_changes_only_white_space_whatever_the_pieces(pieces, columns) -> None:
    wrap = WordWrap(columns)
    text = "".join([*(wrap.add(piece) for piece in pieces), wrap.finish()])
    whole = "".join(pieces)
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", whole)
    again = WordWrap(columns)
    assert "".join([*(again.add(character) for character in whole), again.finish()]) == text


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=10), max_size=30))
def test_lines_of_short_words_fit(words) -> None:
    wrap = WordWrap(10)
    text = wrap.add(" ".join(words)) + wrap.finish()
    assert all(len(line) <= 10 for line in text.split("\n"))
    assert text.split() == words


def test_words_move_to_the_next_line_whole() -> None:
    wrap = WordWrap(10)
    assert wrap.add("one two three four") + wrap.finish() == "one two\nthree four"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb\x07\tc\n\x9b\x7f\r\0", "a[31mb\tc\n"),
        ("a\u202eb\u2066c\u2028d", "abcd"),  # would turn or break the line
        ("שלום\u200f 👩\u200d👩", "שלום\u200f 👩\u200d👩"),
    ],
)
def test_control_characters_are_not_printed(text, expected) -> None:
    assert printable(text) == expected


def test_lone_surrogates_become_question_marks() -> None:
    assert proper("a\udcff") == "a?"
