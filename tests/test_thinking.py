"""Think-blocks are split off the same way however a reply is cut into pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from bitinfer.thinking import Part, ThinkingSplitter, split_thinking

PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "/", "think", ">", "a", " ", "\n", "b c", "</thin"]
    ),
    max_size=14,
)


def stream(pieces: list[str], opened: bool = False) -> list[Part]:
    splitter = ThinkingSplitter(opened)
    parts = [part for piece in pieces for part in splitter.add(piece)]
    return [*parts, *splitter.finish()]


def joined(parts: list[Part]) -> tuple[str, str]:
    texts = {True: "", False: ""}
    for part in parts:
        assert part.text
        texts[part.thinking] += part.text
    return texts[True], texts[False]


def by_pattern(text: str) -> tuple[str, str]:
    """The rule as one regular expression over the whole text."""
    found = re.fullmatch(r"\s*<think>(.*?)(</think>\s*(.*))?", text, re.DOTALL)
    return (found[1].strip(), found[3] or "") if found else ("", text)


@given(PIECES)
def test_pieces_give_what_the_whole_text_gives(pieces) -> None:
    text = "".join(pieces)
    assert joined(stream(pieces)) == by_pattern(text)
    assert split_thinking(text) == by_pattern(text)
    assert joined(stream(list(text))) == by_pattern(text)


@given(PIECES)
def test_block_that_the_template_opened(pieces) -> None:
    assert joined(stream(pieces, opened=True)) == by_pattern("<think>" + "".join(pieces))


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>\nHm.\n</think>\n\nBlue.", "Hm.", "Blue."),
        ("<think>\n\n</think>\n\nBlue.", "", "Blue."),
        ("<think>never closed", "never closed", ""),
        ("The tag <think> opens a block, </think> closes it.", "", None),
        (" <thinly> sliced", "", None),
    ],
)
def test_examples(text, thinking, answer) -> None:
    assert split_thinking(text) == (thinking, text if answer is None else answer)


def test_text_comes_out_as_soon_as_it_is_certain() -> None:
    splitter = ThinkingSplitter()
    assert splitter.add("<think>") == []
    assert splitter.thinking
    assert splitter.add("One ") == [Part(True, "One")]
    assert splitter.add("two") == [Part(True, " two")]
    assert splitter.add("</") == []
    assert splitter.add("think>\nB") == [Part(False, "B")]
    assert splitter.add("lue") == [Part(False, "lue")]
    assert not splitter.thinking
