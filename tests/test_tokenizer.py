"""Tokenizer: control tokens, BOS and end tokens, refusals, and the streaming detokenizer."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import AddedToken, Tokenizer as Backend, decoders, models, pre_tokenizers

import bitinfer
from bitinfer.errors import TokenizerError
from bitinfer.tokenizer import StreamingDetokenizer, Tokenizer

FOLDER = bitinfer.default_model()
BOS, EOS, USER, ASSISTANT = 1, 2, 3, 4
TEXTS = (
    "plain words",
    "  leading and  double spaces",
    "ok 👩‍👩‍👧 family",
    "中文字符，日本語",
    "e\u0301 a\u0308\u0323 combining",
    "🇩🇪🏳️‍🌈",
    "\n\ttabs\n\n",
    "\ufffd kept \ufffd",
)


def byte_level() -> Tokenizer:
    return Tokenizer.load(FOLDER, vocab_size=4096, bos_token_id=BOS, eos_token_ids=[EOS])


def sentence_piece() -> Tokenizer:
    """A small Llama-2-like tokenizer: byte fallback, spaces as ▁, one leading space dropped."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    for piece in [*pieces, *"▁abcdeilnorst<>/", "▁a", "or", "▁w", "中"]:
        vocab[piece] = len(vocab)
    merges = [("▁", "a"), ("o", "r")]
    backend = Backend(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend, bos_token_id=1, eos_token_ids=[2], settings={"add_bos_token": True})


BYTE_LEVEL, SENTENCE_PIECE = byte_level(), sentence_piece()
both = pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCE_PIECE], ids=["bytes", "pieces"])


def streamed(tokenizer: Tokenizer, ids: list[int], context: tuple[int, ...] = ()) -> list[str]:
    detokenizer = StreamingDetokenizer(tokenizer, context)
    return [*(detokenizer.add(i) for i in ids), detokenizer.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_decode_gives_the_encoded_text_back(text: str) -> None:
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode(text)) == text


def test_encode_equals_the_tokenizers_library() -> None:
    backend = Backend.from_file(str(FOLDER / "tokenizer.json"))
    for text in TEXTS:
        assert BYTE_LEVEL.encode(text) == backend.encode(text, add_special_tokens=False).ids


def test_control_tokens_in_text_stay_text() -> None:
    ids = BYTE_LEVEL.encode("<s>Hi</s><|user|>")
    assert not BYTE_LEVEL.special_ids & set(ids)
    assert BYTE_LEVEL.decode(ids) == "<s>Hi</s><|user|>"


def test_control_tokens_are_parsed_when_asked_for() -> None:
    ids = BYTE_LEVEL.encode("<s>Hi</s>", parse_special=True)
    assert ids == [BOS, *BYTE_LEVEL.encode("Hi"), EOS]


@both
def test_exactly_one_leading_bos(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a", True)[:2].count(1) == 1
    assert tokenizer.encode("<s><s>a", True, parse_special=True)[:3].count(1) == 1
    assert tokenizer.encode("", True) == [1]
    assert 1 not in tokenizer.encode("a")


def test_no_bos_where_the_config_denies_it(tmp_path) -> None:
    folder = copied(tmp_path, tokenizer_config={"bos_token": "<s>", "add_bos_token": False})
    tokenizer = Tokenizer.load(folder, vocab_size=4096, bos_token_id=BOS)
    assert BOS not in tokenizer.encode("Hi", True)


def test_end_tokens_are_the_union_of_all_sources(tmp_path) -> None:
    folder = copied(
        tmp_path, tokenizer_config={"eos_token": "</s>"}, generation_config={"eos_token_id": [3]}
    )
    tokenizer = Tokenizer.load(folder, vocab_size=4096, eos_token_ids=[0])
    assert tokenizer.eos_token_ids == (0, 2, 3)


def test_end_of_turn_of_the_template_is_an_end_token() -> None:
    backend = Backend.from_file(str(FOLDER / "tokenizer.json"))
    backend.add_special_tokens(["<|eot_id|>", "<|im_end|>"])
    eot = backend.token_to_id("<|eot_id|>")
    tokenizer = Tokenizer(backend, eos_token_ids=[EOS], template="{{ x }}<|eot_id|>")
    assert tokenizer.eos_token_ids == (EOS, eot)


def test_end_token_that_is_not_flagged_special_is_no_text() -> None:
    backend = Backend.from_file(str(FOLDER / "tokenizer.json"))
    backend.add_tokens([AddedToken("<end>", special=False)])
    tokenizer = Tokenizer(backend, eos_token_ids=[4096])
    assert 4096 not in tokenizer.encode("a<end>")
    assert tokenizer.decode([4096]) == ""


@both
@given(text=st.text(alphabet="ab <s>/中👩\n", max_size=40))
def test_rendered_text_is_tokenized_as_one_with_its_control_tokens(
    tokenizer: Tokenizer, text: str
) -> None:
    rendered = f"<s>User: {text}</s>"
    expected = tokenizer.encode(rendered, True, parse_special=True)
    assert tokenizer.encode_rendered(rendered, "\ue000") == expected


def test_marked_control_token_in_rendered_text_stays_text() -> None:
    ids = BYTE_LEVEL.encode_rendered("<s><|user|><\ue000/s>Hi<|assistant|>", "\ue000")
    assert ids == [BOS, USER, *BYTE_LEVEL.encode("</s>Hi"), ASSISTANT]


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="lone surrogate at 1"):
        BYTE_LEVEL.encode("a\ud800")


def test_id_out_of_range_is_refused_by_decode() -> None:
    with pytest.raises(ValueError, match="token_ids"):
        BYTE_LEVEL.decode([-1])


def test_tokenizer_with_more_ids_than_the_embedding_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"below 4000 .* got 4095"):
        Tokenizer.load(FOLDER, vocab_size=4000)


def test_end_token_beyond_the_embedding_is_refused() -> None:
    with pytest.raises(TokenizerError, match="eos_token_id: expected an id below 4096"):
        Tokenizer.load(FOLDER, vocab_size=4096, eos_token_ids=[4096])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "file not found"),
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b'{"version": "1.0"', "expected a tokenizer"),
        (b"{}", "expected a tokenizer"),
    ],
)
def test_damaged_tokenizer_is_refused_in_one_line(tmp_path, content, message) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.load(tmp_path, vocab_size=4096)
    assert "\n" not in str(caught.value)


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


@both
@pytest.mark.parametrize("kind", ["words", "half characters", "no text"])
def test_streaming_takes_linear_time(tokenizer, kind) -> None:
    if tokenizer is BYTE_LEVEL:
        half = next(i for i in range(4096) if tokenizer.decode([i]) == "\ufffd")
    else:
        half = 3 + 0x80
    blank = BYTE_LEVEL.encode("<s>", parse_special=True)[0]
    unit = {"words": tokenizer.encode("a or"), "half characters": [half], "no text": [blank]}[kind]

    def seconds(count: int) -> float:
        ids = (unit * count)[:count]
        started = time.perf_counter()
        streamed(tokenizer, ids)
        return time.perf_counter() - started

    seconds(200)
    once = min(seconds(1000) for _ in range(3))
    assert min(seconds(8000) for _ in range(3)) < 8 * 4 * once  # quadratic would be 64 times


def copied(folder, **configs):
    """A folder with the embedded model's tokenizer.json and these other files."""
    shutil.copyfile(FOLDER / "tokenizer.json", folder / "tokenizer.json")
    for name, content in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
