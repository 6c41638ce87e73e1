"""Tokenizers rebuilt from GGUF metadata: the same ids as the originals, and refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from tokenizer_cases import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    as_metadata,
    metadata,
    texts,
)
from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import ByteLevel

import bitinfer
from bitinfer.errors import TokenizerError
from bitinfer.formats.byte_level import byte_alphabet
from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.tokenizer import Tokenizer

TEXTS = texts()


def byte_level(pre: str | None, *others: str, types: tuple[int, ...] = (), **fields: Any):
    """A vocabulary of the bytes, ``others`` and one merge."""
    tokens = [*byte_alphabet().values(), "ab", *others]
    fields = {"merges": ["a b"], "model": "gpt2", "tokens": tokens, **fields}
    fields |= {"token_type": [NORMAL] * (257 + len(others) - len(types)) + list(types)}
    return metadata(**fields, **({} if pre is None else {"pre": pre}))


PIECES = {"<unk>": 0.0, "<s>": 0.0, "</s>": 0.0, **{f"<0x{b:02X}>": 0.0 for b in range(256)}}
WORDS = (
    "▁▁ ▁t he in ▁a er ▁the on re ▁s aa aaa ▁▁▁▁ en nd at ll ▁w or ing ▁wor lo ld ▁He llo ér 日本"
)
PIECES |= {piece: -float(rank) for rank, piece in enumerate(WORDS.split())}
PIECES |= {c: -1000.0 - ord(c) for c in sorted({*"▁.,!'\n日本éβ", *map(chr, range(97, 123)), "H"})}
IDS = {piece: i for i, piece in enumerate(PIECES)}
PIECE_TYPES = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(PIECES) - 259)]


def sentence_piece(**fields: Any) -> dict[str, Any]:
    fields = {"scores": list(PIECES.values()), "token_type": PIECE_TYPES, **fields}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return metadata(**{"model": "llama", "tokens": list(PIECES), **ids, **fields})


def by_scores(text: str) -> list[int]:
    """SentencePiece's rule word by word: join the two neighbours whose union scores best."""
    pieces = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        unions = [a + b for a, b in itertools.pairwise(pieces)]
        known = [union if PIECE_TYPES[IDS.get(union, 0)] == NORMAL else "" for union in unions]
        pairs = [(-PIECES[union], at) for at, union in enumerate(known) if union]
        if not pairs:
            break
        at = min(pairs)[1]
        pieces[at : at + 2] = [unions[at]]
    alone = [[IDS[p]] if p in IDS else [3 + b for b in p.encode()] for p in pieces]
    return [i for ids in alone for i in ids]


def plain_ids(backend: Backend, text: str) -> list[int]:
    backend.encode_special_tokens = True
    return backend.encode(text, add_special_tokens=False).ids


def test_byte_level_ids_equal_those_of_the_tokenizer_json() -> None:
    file = bitinfer.default_model() / "tokenizer.json"
    original = Backend.from_file(str(file))
    fields = as_metadata(file, pre="smollm", bos_token_id=1, eos_token_id=2, add_bos_token=True)
    rebuilt = tokenizer_from_gguf(fields, "a.gguf")
    assert (rebuilt.bos_token_id, rebuilt.eos_token_ids, rebuilt.notes) == (1, (2,), ())
    for text in TEXTS:
        ids = plain_ids(original, text)
        assert plain_ids(rebuilt.backend, text) == ids, text
        assert rebuilt.backend.decode(ids) == original.decode(ids)
    for text in ("", "<s>a</s>", "<|user|> Hi"):
        original.encode_special_tokens = rebuilt.backend.encode_special_tokens = False
        assert rebuilt.backend.encode(text).ids == original.encode(text).ids


def test_sentence_piece_ids_follow_the_scores() -> None:
    backend = tokenizer_from_gguf(sentence_piece(), "a.gguf").backend
    for text in TEXTS:
        if not any(name in text for name in ("<s>", "</s>", "<unk>")):
            assert backend.encode(text).ids == [1, *by_scores(text)], text


@pytest.mark.parametrize(
    "text", ["Hello world", " lead", "  two", "日本 ☕️ aaaaa", "a\n\nb", "é e\u0301"]
)
def test_sentence_piece_gives_the_text_back(text: str) -> None:
    backend = tokenizer_from_gguf(sentence_piece(), "a.gguf").backend
    assert backend.decode(backend.encode(text).ids) == text


def test_arrays_may_be_as_a_reader_of_files_gives_them() -> None:
    scores, types = np.float32(list(PIECES.values())), np.int32(PIECE_TYPES)
    arrays = sentence_piece(tokens=tuple(PIECES), scores=scores, token_type=types)
    backend = tokenizer_from_gguf(arrays, "a.gguf").backend
    assert backend.to_str() == tokenizer_from_gguf(sentence_piece(), "a.gguf").backend.to_str()


def test_sentence_piece_without_the_leading_space() -> None:
    backend = tokenizer_from_gguf(sentence_piece(add_space_prefix=False), "a.gguf").backend
    ids = backend.encode("the", add_special_tokens=False).ids
    assert "".join(map(backend.id_to_token, ids)) == "the"
    assert backend.decode(backend.encode(" the").ids) == " the"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", "DON|'|T| x|.|y| 1234| | z|\n|\n|!?"),
        ("smollm", "DON|'|T| x|.|y| |1|2|3|4| | z|\n|\n|!?"),
        ("qwen2", "DON|'T| x|.y| |1|2|3|4| | z|\n\n|!?"),
        ("llama-bpe", "DON|'T| x|.y| |123|4| | z|\n\n|!?"),
        ("llama3", "DON|'T| x|.y| |123|4| | z|\n\n|!?"),
        ("falcon3", "DON|'T| x|.y| |123|4| | z|\n\n|!?"),
        ("falcon_e", "DON|'|T| x|.|y| |1|2|3|4| | z|\n\n|!?"),
    ],
)
def test_text_is_split_as_the_name_says(pre: str, pieces: str) -> None:
    backend = tokenizer_from_gguf(byte_level(pre), "a.gguf").backend
    split = backend.pre_tokenizer.pre_tokenize_str(pieces.replace("|", ""))
    assert [text.replace("Ġ", " ").replace("Ċ", "\n") for text, _ in split] == pieces.split("|")


def test_falcon_e_splits_punctuation_off_before_words() -> None:
    backend = tokenizer_from_gguf(byte_level("falcon_e"), "a.gguf").backend
    split = backend.pre_tokenizer.pre_tokenize_str("it's (a) don't")
    assert [text for text, _ in split] == ["it", "'", "s", "Ġ", "(", "a", ")", "Ġdon", "'", "t"]


def test_the_alphabet_of_bytes_is_gpt2s() -> None:
    assert sorted(byte_alphabet().values()) == sorted(ByteLevel.alphabet())
    backend = tokenizer_from_gguf(byte_level("gpt-2"), "a.gguf").backend
    for text in TEXTS:
        assert backend.decode(backend.encode(text, add_special_tokens=False).ids) == text


@pytest.mark.parametrize(("pre", "count"), [("llama-bpe", 1), ("falcon3", 1), ("gpt-2", 2)])
def test_a_word_that_is_a_token_needs_no_merges_where_the_family_ignores_them(pre, count) -> None:
    backend = tokenizer_from_gguf(byte_level(pre, "abc"), "a.gguf").backend
    assert len(backend.encode("abc", add_special_tokens=False)) == count


def test_qwen2_composes_characters_first() -> None:
    backend = tokenizer_from_gguf(byte_level("qwen2"), "a.gguf").backend
    assert backend.encode("e\u0301").ids == backend.encode("\u00e9").ids


def test_missing_split_is_llama3s_for_its_vocabulary_and_said() -> None:
    others = [f"<|{i}|>" for i in range(128256 - 257)]
    fields = byte_level(None, *others, types=(CONTROL,) * 256, bos_token_id=128000)
    rebuilt = tokenizer_from_gguf(fields, "a.gguf")
    assert rebuilt.backend.encode("1234", add_special_tokens=False).ids == [49, 50, 51, 52]
    assert [t for t, _ in rebuilt.backend.pre_tokenizer.pre_tokenize_str("1234")] == ["123", "4"]
    assert rebuilt.backend.encode("").ids == [128000]
    assert "pre is missing" in rebuilt.notes[0]
    assert "llama-bpe" in rebuilt.notes[0]


def test_missing_split_of_another_vocabulary_is_gpt2s_and_said() -> None:
    rebuilt = tokenizer_from_gguf(byte_level(None), "a.gguf")
    assert [t for t, _ in rebuilt.backend.pre_tokenizer.pre_tokenize_str("1234")] == ["1234"]
    assert "gpt-2" in rebuilt.notes[0]


def test_bos_is_put_in_front_unless_the_file_denies_it() -> None:
    fields = byte_level("llama3", "<b:>", types=(CONTROL,), bos_token_id=257)
    assert tokenizer_from_gguf(fields, "a.gguf").backend.encode("").ids == [257]
    fields |= metadata(add_bos_token=False)
    assert tokenizer_from_gguf(fields, "a.gguf").backend.encode("").ids == []
    fields |= metadata(pre="gpt-2", add_bos_token=None)
    assert tokenizer_from_gguf(fields, "a.gguf").backend.encode("").ids == []


def test_control_tokens_cannot_be_typed_and_the_models_own_can() -> None:
    types = (CONTROL, USER_DEFINED, CONTROL)
    fields = byte_level("llama3", "<|bos|>", "<think>", "<|end|>", types=types, bos_token_id=257)
    rebuilt = tokenizer_from_gguf(fields | metadata(eos_token_id=259), "a.gguf")
    tokenizer = Tokenizer(
        rebuilt.backend,
        bos_token_id=rebuilt.bos_token_id,
        eos_token_ids=rebuilt.eos_token_ids,
    )
    assert tokenizer.special_ids == {257, 259}
    assert tokenizer.encode("<|end|><think>", True)[-1] == 258
    assert tokenizer.special_ids.isdisjoint(tokenizer.encode("<|end|><think>"))
    assert tokenizer.encode("<|end|>", True, parse_special=True) == [257, 259]
    assert tokenizer.decode([257, 256, 258, 259]) == "ab<think>"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (byte_level("gpt-2", model=None), "model: expected a text, got nothing"),
        (byte_level("gpt-2", model="bert"), "model: expected 'gpt2' or 'llama', got 'bert'"),
        (byte_level("gpt-9"), "one of llama-bpe, llama3, llama-v3, falcon3, qwen2, smollm, gpt-2,"),
        (byte_level("a\nb"), r"got 'a\?b'"),
        (byte_level("gpt-2", tokens=[]), "tokens: expected a list of texts, got an empty list"),
        (byte_level("gpt-2", tokens=["a", 1]), "tokens: expected a list of texts"),
        (byte_level("gpt-2", "ab"), "tokens: expected every token once, got 'ab' 2 times"),
        (byte_level("gpt-2") | metadata(token_type=[1, 1]), "expected 257 numbers, .*, got 2"),
        (byte_level("gpt-2") | metadata(token_type=None), "token_type: expected 257 numbers"),
        (byte_level("gpt-2", types=(7,)), "token_type: expected 1 to 6, got 7 at 256"),
        (byte_level("gpt-2", merges=None), "merges: expected a list of texts, got nothing"),
        (byte_level("gpt-2", merges=["a b", "a zz"]), "got 'a zz' at 1"),
        (byte_level("gpt-2", merges=["b a"]), "two tokens that make a third, got 'b a' at 0"),
        (byte_level("gpt-2", merges=["ab"]), "got 'ab' at 0"),
        (byte_level("gpt-2", bos_token_id=257), "bos_token_id: expected an id below 257, got 257"),
        (byte_level("gpt-2", eos_token_id=-1), "eos_token_id: expected an id below 257, got -1"),
        (
            byte_level("gpt-2", eos_token_id=True),
            "eos_token_id: expected an id below 257, got True",
        ),
        (
            byte_level("gpt-2", add_bos_token=1),
            "add_bos_token: expected true or false, got int '1'",
        ),
        (byte_level("gpt-2", add_bos_token=True), "expected an id, since add_bos_token is true"),
        (sentence_piece(scores=None), "scores: expected .* numbers, .*, got nothing"),
        (sentence_piece(scores=[0.0]), "scores: expected .* numbers, one for each token, got 1"),
        (sentence_piece(scores=[math.nan] * len(PIECES)), "scores: expected finite numbers"),
        (sentence_piece(scores=["a"] * len(PIECES)), "scores: expected .* numbers"),
        (sentence_piece(unknown_token_id=10**9), "unknown_token_id: expected an id below"),
        (sentence_piece(token_type=[BYTE] * len(PIECES)), "expected bytes as '<0x0A>', got"),
    ],
)
def test_bad_metadata_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as error:
        tokenizer_from_gguf(fields, "a.gguf")
    assert "\n" not in str(error.value)
    assert "in a.gguf" in str(error.value)
