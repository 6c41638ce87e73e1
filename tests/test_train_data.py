"""Texts to tokens to rows: nothing is lost, nothing doubled, and bad files are told in one line."""

import resource
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_tokenizers import BYTE_LEVEL, SENTENCE_PIECE
from tokenizers import Tokenizer as Backend

import bitinfer
from bitinfer import text_file
from bitinfer.errors import DataError, TrainingError
from bitinfer.train import data
from bitinfer.train.data import IGNORED, PackedRows, TokenFile, token_path, write_tokens
from bitinfer.train.new_tokenizer import train_tokenizer

BACKEND = Backend.from_file(str(bitinfer.default_model() / "tokenizer.json"))
DOCUMENTS = ["Once upon a time.", "<|user|>Hi!</s><|user|>And you?", "Zürich 🙂\n\nis far."]


def tokens_of(text: str | bytes, folder: Path, name: str = "text") -> TokenFile:
    source, target = folder / f"{name}.txt", token_path(folder, name, 4096)
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    write_tokens(source, target, BACKEND, 1, 2)
    return TokenFile.open(target)


def random_file(lengths: list[int], begin: int) -> TokenFile:
    """Documents in which every token is another one."""
    tokens = np.arange(begin, begin + sum(lengths), dtype="<u2")
    return TokenFile(tokens, np.cumsum(lengths))


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 20])
def test_tokens_are_what_the_tokenizer_makes_of_the_text_wherever_it_is_read(
    block, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", block)
    found = tokens_of("\ufeff" + "\n".join(f"<s>{d}</s>" for d in DOCUMENTS), tmp_path)
    parts = np.split(found.tokens, found.ends[:-1])
    expected = [BYTE_LEVEL.encode(f"<s>{d}</s>", parse_special=True) for d in DOCUMENTS]
    assert [part.tolist() for part in parts] == expected


def test_a_text_without_marks_is_one_document(tmp_path):
    found = tokens_of("Some words.\n\nMore words.\n", tmp_path)
    assert found.tokens.tolist() == [1, *BYTE_LEVEL.encode("Some words.\n\nMore words."), 2]
    assert found.ends.tolist() == [len(found.tokens)]


def test_marks_become_the_tokens_of_a_tokenizer_without_bos():
    ids = data.encode_documents(
        ["a</s>or</s>"], Backend.from_str(SENTENCE_PIECE.to_json()), None, 7
    )
    a, word = SENTENCE_PIECE.encode("a"), SENTENCE_PIECE.encode("or")
    assert ids[0].tolist() == [*a, 7, *word, 7]


def test_a_huge_document_is_cut_at_a_line_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "_LONGEST_CHARS", 30)
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", 7)
    lines = [f"line number {i}" for i in range(20)]
    (tmp_path / "long.txt").write_text("\n".join(lines))
    found = list(text_file.read_documents(tmp_path / "long.txt"))
    assert len(found) > 5
    assert "\n".join(found).split("\n") == lines


def test_a_pass_holds_every_token_once_and_its_end_flows_into_the_next():
    files = [random_file([3, 1, 7, 5], 100), random_file([2, 9], 500)]
    rows = PackedRows([(files[0], 1), (files[1], 3)], context_length=4, seed=5)
    assert rows.tokens_in_pass == 16 + 3 * 11
    taken = rows.rows(0, 2 * 49)  # 8 passes
    stream = [*taken[:, :-1].ravel(), taken[-1, -1]]
    assert (taken[1:, 0] == taken[:-1, -1]).all()  # a row ends with what the next one begins with
    expected = Counter(files[0].tokens.tolist()) + Counter(files[1].tokens.tolist() * 3)
    passes = [stream[i * 49 : (i + 1) * 49] for i in range(8)]
    assert all(Counter(map(int, one)) == expected for one in passes)
    assert len({tuple(map(int, one)) for one in passes}) == 8  # each in an order of its own


def test_documents_stay_whole_in_the_stream():
    rows = PackedRows([(random_file([3, 1, 7, 5], 100), 1)], context_length=16, seed=0)
    stream = rows.rows(0, 1)[0, :16].tolist()
    starts = [stream.index(first) for first in (100, 103, 104, 111)]
    for start, first, length in zip(starts, (100, 103, 104, 111), (3, 1, 7, 5), strict=True):
        assert stream[start : start + length] == list(range(first, first + length))


def test_rows_depend_on_their_number_and_the_seed_alone():
    files = [(random_file([3, 1, 7, 5], 100), 1)]
    whole = PackedRows(files, 3, seed=1).rows(0, 40)
    late = PackedRows(files, 3, seed=1)
    assert (late.rows(33, 2) == whole[33:35]).all()
    assert (late.rows(4, 9) == whole[4:13]).all()
    assert (PackedRows(files, 3, seed=2).rows(0, 40) != whole).any()


def test_the_order_of_a_seed_is_kept_for_ever():
    """A run may be resumed with another NumPy."""
    rows = PackedRows([(random_file([1] * 8, 100), 1)], 8, seed=3)
    assert rows.rows(0, 1)[0].tolist() == [100, 104, 107, 101, 105, 106, 103, 102, 100]


@pytest.mark.parametrize("count", [2, 4, 5, 6, 9])
def test_validation_learns_each_token_but_the_first_once(count):
    file = random_file([count], 100)
    rows = data.validation_rows(file, 4)
    targets = rows[:, 1:].ravel()
    assert targets[targets != IGNORED].tolist() == list(range(101, 100 + count))
    assert rows[0, 0] == 100


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected text, got an empty file"),
        (b" \n<s></s>\n", "expected text, got an empty file"),
        (b"good \xe2\x82\xac\nbad \xff!", "expected UTF-8 text, got byte 0xff at 13: convert the"),
        (b"cut off \xe2\x82", "expected UTF-8 text, got byte 0xe2 at 8: convert the file"),
    ],
)
@pytest.mark.parametrize("block", [1, 5, 1 << 20])
def test_a_file_that_is_no_text_is_refused_and_leaves_nothing(
    content, told, block, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", block)
    with pytest.raises(DataError) as error:
        tokens_of(content, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'text.txt'}: {told}")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_tokens_that_do_not_fit_on_the_disk_are_told_and_leave_nothing(tmp_path):
    """A limit on the size of files stands in for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        (tmp_path / "text.txt").write_text("some words\n" * 900)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(TrainingError, match=r"text\.u16: cannot be written: File too large"):
            write_tokens(tmp_path / "text.txt", tmp_path / "text.u16", BACKEND, 1, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: file not found"):
        list(text_file.read_documents(tmp_path / "none.txt"))
    tokens_of("some text", tmp_path)
    path = token_path(tmp_path, "text", 4096)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(TrainingError, match="tokens that do not fit"):
        TokenFile.open(path)


def test_a_count_after_a_file_is_its_weight():
    assert data.parse_source("a/b.txt") == (Path("a/b.txt"), 1)
    assert data.parse_source("a/b.txt:12") == (Path("a/b.txt"), 12)
    assert data.parse_source("c:b.txt") == (Path("c:b.txt"), 1)
    with pytest.raises(TrainingError, match="expected a count from 1 up"):
        data.parse_source("b.txt:0")


def test_a_large_vocabulary_takes_four_bytes():
    assert token_path(Path(), "x", 1 << 16).suffix == ".u16"
    assert token_path(Path(), "x", (1 << 16) + 1).suffix == ".u32"


def test_a_trained_tokenizer_spells_every_text_and_knows_the_marks(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("<s><|user|>the cat<|assistant|>the hat</s>\n" * 9 + "that other rat 2021")
    train_tokenizer([text], 270, tmp_path / "tokenizer")
    found = bitinfer.tokenizer.Tokenizer.load(tmp_path / "tokenizer", vocab_size=270)
    assert found.vocab_size == 270
    assert (found.bos_token_id, found.eos_token_ids) == (1, (2,))
    assert found.decode(found.encode("Zürich 🙂 21")) == "Zürich 🙂 21"
    assert len(found.encode("the")) == 1
    assert len(found.encode("2021")) == 4  # digit by digit
    assert found.encode("<|user|>", parse_special=True) == [3]


def test_a_text_too_small_for_the_vocabulary_is_told(tmp_path):
    (tmp_path / "text.txt").write_text("aa")
    with pytest.raises(TrainingError, match="expected 4096 tokens, got a text that makes only 262"):
        train_tokenizer([tmp_path / "text.txt"], 4096, tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()
