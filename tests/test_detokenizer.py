"""The streaming detokenizer: whole characters, the decoded whole, in linear time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st
from tiny_tokenizers import BYTE_LEVEL, SENTENCE_PIECE, TEXTS, both

from bitinfer.detokenizer import StreamingDetokenizer
from bitinfer.tokenizer import Tokenizer


def streamed(tokenizer: Tokenizer, ids: list[int], context: tuple[int, ...] = ()) -> list[str]:
    detokenizer = StreamingDetokenizer(tokenizer, context)
    return [*(detokenizer.add(i) for i in ids), detokenizer.finish()]


@both
@pytest.mark.parametrize("text", TEXTS)
def test_streamed_pieces_are_the_text_and_hold_whole_characters(tokenizer, text) -> None:
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@both
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_streamed_pieces_of_any_ids_are_the_decoded_whole(tokenizer, data) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@both
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_streamed_pieces_of_any_text_are_the_text(tokenizer, text) -> None:
    ids = tokenizer.encode(text)
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_leading_space_after_a_context_is_kept() -> None:
    context = tuple(SENTENCE_PIECE.encode("a"))
    ids = SENTENCE_PIECE.encode("a or")[len(context) :]
    assert "".join(streamed(SENTENCE_PIECE, ids, context)) == " or"


@both
def test_first_piece_comes_with_the_first_token(tokenizer) -> None:
    pieces = streamed(tokenizer, tokenizer.encode("a or a"))
    assert pieces[0]


class Counting:
    """A tokenizer that counts the tokens which it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.decoded = tokenizer, 0

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)

    def decode(self, token_ids: list[int]) -> str:
        self.decoded += len(token_ids)
        return self._tokenizer.decode(token_ids)


@both
@pytest.mark.parametrize("kind", ["words", "half characters", "no text"])
def test_streaming_takes_linear_time(tokenizer, kind) -> None:
    if tokenizer is BYTE_LEVEL:
        half = next(i for i in range(4096) if tokenizer.decode([i]) == "\ufffd")
    else:
        half = 3 + 0x80
    blank = BYTE_LEVEL.encode("<s>", parse_special=True)[0]
    unit = {"words": tokenizer.encode("a or"), "half characters": [half], "no text": [blank]}[kind]

    def decoded(count: int) -> int:
        counting = Counting(tokenizer)
        streamed(counting, (unit * count)[:count])
        return counting.decoded

    assert decoded(4000) <= 4 * decoded(1000) + 4000  # quadratic would be 16 times
    assert decoded(4000) < 12 * 4000  # each token in some windows: at most 8 wait, then an eighth
