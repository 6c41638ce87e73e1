"""Files of text and of JSON lines: what is read, and what is refused with its place."""

import pytest

from bitinfer import text_file
from bitinfer.errors import DataError
from bitinfer.text_file import read_json_lines, read_text


@pytest.mark.parametrize("block", [1, 2, 1 << 20])
def test_a_text_is_read_as_it_stands(block, tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", block)
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffZürich 🙂\r\n\n<s>".encode())
    assert read_text(path) == "Zürich 🙂\r\n\n<s>"


def test_a_text_that_is_empty_or_too_large_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"text\.txt: expected text, got an empty file"):
        read_text(path)
    monkeypatch.setattr(text_file, "_MAX_TEXT_CHARS", 3)
    path.write_bytes(b"abc")
    assert read_text(path) == "abc"
    path.write_bytes(b"abcd")
    with pytest.raises(DataError, match=r"text\.txt: expected at most 3 characters, got more"):
        read_text(path)


def test_json_lines_know_where_they_stand(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x"}\n\n  \n{"a": 1, "b": null}\r\n')
    first, second = read_json_lines(path)
    assert (first.text("a"), first.where) == ("x", f"{path}, line 1")
    assert (second.value("b"), second.where) == (None, f"{path}, line 4")
    with pytest.raises(DataError, match=r'line 1: expected the key "b", got "a"$'):
        first.value("b")
    with pytest.raises(DataError, match=r'line 4: "a": expected a text, got 1$'):
        second.text("a")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n[1]\n', "line 2: expected a JSON object, got list"),
        (b'{"a": 1}\n{"a": 1, "a": 2}', 'line 2: expected a JSON object, .* the key "a" stands'),
        (b'{"a": NaN}', "line 1: expected a JSON object, .* NaN is not a JSON number"),
        (b'{"a": 1}\n{', "line 2: expected a JSON object, got text that is not"),
        (b"\n \n", "expected a JSON object in each line, got blank lines"),
        (b'{"a": "\xff"}', "expected UTF-8 text, got byte 0xff at 7"),
    ],
)
def test_lines_that_are_no_objects_are_refused(content, told, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"rows\.jsonl[,:] {told}"):
        list(read_json_lines(path))
