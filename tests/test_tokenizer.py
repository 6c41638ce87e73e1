"""Tokenizer: control tokens, BOS and end tokens, and refusals."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given, strategies as st
from tiny_tokenizers import BYTE_LEVEL, TEXTS, both
from tokenizers import AddedToken, Tokenizer as Backend, models

import bitinfer
from bitinfer.errors import TokenizerError
from bitinfer.tokenizer import Tokenizer

FOLDER = bitinfer.default_model()
BOS, EOS, USER, ASSISTANT = 1, 2, 3, 4


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


def copied(folder, **configs):
    """A folder with the embedded model's tokenizer.json and these other files."""
    shutil.copyfile(FOLDER / "tokenizer.json", folder / "tokenizer.json")
    for name, content in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("ids", "added", "size"), [((0, 1, 2), 0, 3), ((0, 1, 2), 2, 5), ((0, 2, 3), 0, 4)]
)
def test_vocab_size_is_the_largest_id_and_one(ids, added, size):
    backend = Backend(models.BPE(vocab=dict(zip("abc", ids, strict=True)), merges=[]))
    backend.add_tokens([f"<{i}>" for i in range(added)])
    assert Tokenizer(backend).vocab_size == size
