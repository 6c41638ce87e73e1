"""tiktoken files: ids by rank, Llama 3's control tokens, and refusals."""

from __future__ import annotations

import base64
import itertools
import shutil
from pathlib import Path

import pytest
from tokenizer_cases import texts

import bitinfer
from bitinfer.errors import TokenizerError
from bitinfer.formats.byte_level import WordSplit
from bitinfer.formats.tiktoken_file import read_ranks, read_tiktoken, tokenizer_from_ranks
from bitinfer.tokenizer import Tokenizer

BYTES = [bytes([byte]) for byte in range(256)]
WORDS = (
    b"th|he|in|er|the|ing| a|aa|aaa|aaaa|\xd0\xb5|\xe6\x97|ll|lo|el|ell|hell|hello| w|or|  | the"
)
RANKS = [*BYTES, *WORDS.split(b"|")]


def lines(ranks: list[bytes]) -> bytes:
    coded = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    return b"".join(coded)


def by_rank(text: bytes) -> list[int]:
    """tiktoken's rule: join the two neighbours whose union has the lowest rank."""
    parts = [text[i : i + 1] for i in range(len(text))]
    while True:
        unions = [a + b for a, b in itertools.pairwise(parts)]
        found = [(RANKS.index(union), at) for at, union in enumerate(unions) if union in RANKS]
        if not found:
            return [RANKS.index(part) for part in parts]
        at = min(found)[1]
        parts[at : at + 2] = [unions[at]]


def test_ids_equal_those_of_tiktokens_rule() -> None:
    backend = tokenizer_from_ranks(RANKS, WordSplit(()), [])
    for text in (*texts(), "aaaaaaaaa", "hellohell the  thing"):
        ids = backend.encode(text).ids
        assert ids == by_rank(text.encode()), text
        assert backend.decode(ids) == text


def test_a_model_folder_may_hold_llama3s_ranks(tmp_path: Path) -> None:
    others = [b"\0" + n.to_bytes(3, "big") for n in range(128000 - 257)]
    (tmp_path / "tokenizer.model").write_bytes(lines([*BYTES, b"ab", *others]))
    tokenizer = Tokenizer.load(
        tmp_path, vocab_size=128256, bos_token_id=128000, eos_token_ids=[128009]
    )
    assert tokenizer.vocab_size == 128256
    assert len(tokenizer.special_ids) == 256
    assert tokenizer.encode("ab", True) == [128000, 256]
    control = "<|start_header_id|><|end_header_id|><|eot_id|><|reserved_special_token_250|>"
    ids = tokenizer.encode(control, parse_special=True)
    assert ids == [128006, 128007, 128009, 128255]
    assert tokenizer.bos_token == "<|begin_of_text|>"


def test_tokenizer_json_goes_before_the_ranks(tmp_path: Path) -> None:
    shutil.copy(bitinfer.default_model() / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(lines(RANKS))
    assert Tokenizer.load(tmp_path, vocab_size=4096).vocab_size == 4096


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lines(RANKS), f"expected 128000 ranks .*, got {len(RANKS)}"),
        (b"", "expected a rank for each byte, got none for 0"),
        (lines(BYTES[1:]), "expected a rank for each byte, got none for 0"),
        (lines(BYTES).replace(b" 9\n", b" 10\n"), "its rank 9 in line 10, got 'CQ== 10'"),
        (lines(BYTES).replace(b" 9\n", b"\n"), "its rank 9 in line 10, got 'CQ=='"),
        (lines(BYTES).replace(b"CQ==", b"C!=="), "its rank 9 in line 10, got 'C!== 9'"),
        (lines(BYTES).replace(b"CQ==", b"CQ="), "its rank 9 in line 10"),
        (lines(BYTES).replace(b"CQ==", b""), "its rank 9 in line 10, got ' 9'"),
        (lines([*BYTES, b"a"]), "expected every token once, got rank 256 with that of 97"),
        (lines(BYTES).replace(b"CQ==", b"\xff"), "got bytes that are no text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer"),
        (b"a" * (5 << 20), "expected at most 4194304 bytes"),
    ],
)
def test_bad_ranks_are_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=message) as error:
        read_tiktoken(tmp_path / "tokenizer.model")
    assert "\n" not in str(error.value)
    assert "tokenizer.model in" in str(error.value)


def test_missing_file_of_ranks_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="No such file"):
        read_ranks(tmp_path / "tokenizer.model")
