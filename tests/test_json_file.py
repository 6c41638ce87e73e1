import pytest

from bitinfer.errors import ConfigError
from bitinfer.json_file import parse_json_object, read_json_object, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a": 1, "a": 2}', 'the key "a" stands twice'),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"a": ', "expected a JSON object, got text that is not"),
        (b'{"a": "\xff"}', "expected UTF-8 JSON, got byte 7 that is not"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected a JSON object, got text that is not"),
    ],
)
def test_loose_json_is_refused(text, expected):
    with pytest.raises(ConfigError, match=r"^header: ") as caught:
        parse_json_object(text, "header", ConfigError)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: run 'git lfs pull'"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"<HTML>", "an HTML page"),
        (b"", "an empty file: download it again"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
    ],
)
def test_what_stands_in_place_of_a_json_file_is_named(tmp_path, content, expected):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_json_object(tmp_path / "config.json", ConfigError)
    assert expected in str(caught.value)
    assert f"config.json in {tmp_path}" in str(caught.value)


def test_missing_file_and_directory_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="file not found: a model folder needs it"):
        read_json_object(tmp_path / "config.json", ConfigError)
    with pytest.raises(ConfigError, match="expected a file, got a directory"):
        read_json_object(tmp_path, ConfigError)


def test_shown_text_is_one_short_printable_line():
    assert shown("a\nb\x1b[31m") == "a?b?[31m"
    assert len(shown("x" * 1000)) == 80
