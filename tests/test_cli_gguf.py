"""GGUF files on the command line: what a user sees of them."""

from __future__ import annotations

import json

import pytest
from gguf_files import STRING, gguf_bytes, key
from gguf_models import embedded_model
from test_cli import assert_one_line_error, run_inside

PROMPT = ("Once upon a time", "--temperature", 0, "--max-tokens", 8, "--threads", 1)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return embedded_model(tmp_path_factory.mktemp("gguf") / "tales.gguf", "I2_S 64-block")


def test_a_file_generates_what_its_model_does_and_says_what_was_found(file):
    done = run_inside("generate", "-m", file, *PROMPT)
    assert done.stdout == run_inside("generate", *PROMPT).stdout
    assert "note: I2_S byte order: 64-block, found by reading a text in each" in done.stderr


def test_convert_says_what_was_found_and_info_shows_it(file, tmp_path):
    done = run_inside("convert", file, tmp_path / "packed")
    assert done.stderr.startswith("note: I2_S byte order: 64-block, found by")
    facts = json.loads(run_inside("info", tmp_path / "packed", "--json").stdout)["model"]
    assert facts["notes"][0].startswith("I2_S byte order: 64-block")
    facts = json.loads(run_inside("info", file, "--json").stdout)["model"]
    assert facts["file_bytes"] == file.stat().st_size
    assert facts["chat_template"] is True


def test_an_order_that_is_asked_for_is_taken(file, tmp_path):
    done = run_inside("convert", file, tmp_path / "packed", "--i2s-layout", "4row")
    assert done.stderr == "note: I2_S byte order: 4-row, as asked\n"


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "damaged.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0")
    assert_one_line_error(run_inside("generate", "-m", path, "x"), "damaged.gguf: header: expected")


def test_a_file_without_a_tokenizer_is_refused_before_its_weights_are_read(tmp_path):
    path = tmp_path / "bare.gguf"
    path.write_bytes(gguf_bytes({}, [key("general.architecture", STRING, "bitnet")]))
    done = run_inside("embed", path, "x")
    assert_one_line_error(done, "bare.gguf: expected a tokenizer, got a file without one")
