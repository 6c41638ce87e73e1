"""tokenizer.model of SentencePiece's BPE, against ids that sentencepiece 0.2.3 itself gave.

golden/llama2_style.model was trained by it with Llama 2's options (identity normalizer, byte
fallback, split digits, a dummy prefix), the ids beside it are those of its ``encode``.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from bitinfer.errors import TokenizerError
from bitinfer.formats.sentencepiece_file import read_sentence_piece
from bitinfer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden" / "llama2_style.model"
CASES = json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))
SIZE = 640
ADDED = {"<pad>": SIZE, "<|user|>": SIZE + 1}


def folder(tmp_path, added=None, model=None):
    shutil.copyfile(GOLDEN, tmp_path / "tokenizer.model")
    if model is not None:
        (tmp_path / "tokenizer.model").write_bytes(model)
    if added is not None:
        (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    return tmp_path


def error(tmp_path, **files):
    with pytest.raises(TokenizerError) as caught:
        read_sentence_piece(folder(tmp_path, **files) / "tokenizer.model")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("added", [None, ADDED])
def test_ids_are_those_of_sentencepiece(tmp_path, added):
    tokenizer = Tokenizer.load(
        folder(tmp_path, added), vocab_size=SIZE + 2, bos_token_id=1, eos_token_ids=[2]
    )
    assert tokenizer.vocab_size == SIZE + len(added or {})
    for text, ids in CASES:
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.encode(text, add_special_tokens=True) == [1, *ids], text


def test_text_comes_back(tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path), vocab_size=SIZE)
    for text, ids in CASES:
        assert tokenizer.decode(ids) == text.replace("▁", " ")  # which it writes for a space


def test_added_tokens_are_control_tokens(tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path, ADDED), vocab_size=SIZE + 2)
    assert tokenizer.encode("<pad>", parse_special=True) == [SIZE]
    assert SIZE not in tokenizer.encode("<pad>")
    assert {0, 1, 2, SIZE, SIZE + 1} <= tokenizer.special_ids


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ({"<pad>": SIZE + 1}, f"<pad>: expected id {SIZE}, the next one, got {SIZE + 1}"),
        ({"<pad>": 7}, f"<pad>: expected an id from {SIZE}, behind the vocabulary, got 7"),
        ({"<pad>": "x"}, f"<pad>: expected an id from {SIZE}, behind the vocabulary, got 'x'"),
    ],
)
def test_added_tokens_that_do_not_follow_are_refused(tmp_path, added, expected):
    message = error(tmp_path, added=added)
    assert message.startswith(f"added_tokens.json in {tmp_path}: {expected}")
    assert message.endswith("take both files from one source")


def test_other_kinds_and_normalizers_are_refused(tmp_path):
    data = GOLDEN.read_bytes()
    unigram = data + b"\x12\x02\x18\x01"  # trainer_spec {model_type: UNIGRAM}
    assert "expected kind BPE, got another: take the model's tokenizer.json" in error(
        tmp_path, model=unigram
    )
    nfkc = data + b"\x1a\x03\x12\x01x"  # normalizer_spec {precompiled_charsmap: "x"}
    assert "expected a normalizer that does nothing, got another" in error(tmp_path, model=nfkc)


def test_a_cut_file_is_refused_wherever_it_ends(tmp_path):
    data = GOLDEN.read_bytes()
    for end in [*range(1, 60), *range(200, len(data), 397)]:
        message = error(tmp_path, model=data[:end])
        assert f"tokenizer.model in {tmp_path}: " in message or "tokenizer.ggml." in message


def test_damage_is_refused_or_does_no_harm(tmp_path):
    for seed in range(60):
        data = bytearray(GOLDEN.read_bytes())
        data[(seed * 7919) % len(data)] ^= 1 << seed % 8
        with suppress(TokenizerError):
            read_sentence_piece(folder(tmp_path, model=bytes(data)) / "tokenizer.model")
