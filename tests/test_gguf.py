"""formats/gguf*.py: headers, hostile ones above all, and where the tensors lie."""

import time
import tracemalloc

import numpy as np
import pytest
from gguf_files import (
    ARRAY,
    STRING,
    TYPE_NUMBERS,
    entry,
    gguf_bytes,
    head,
    key,
    padded,
    string,
    u32,
    u64,
)

from bitinfer.errors import CheckpointError
from bitinfer.formats.gguf import GgufFile

F32 = np.arange(8, dtype="<f4")
X = (TYPE_NUMBERS["F32"], (2, 4), F32.tobytes())
KEYS = [
    *(key(f"n{kind}", kind, 1) for kind in (0, 1, 2, 3, 4, 5, 7, 10, 11)),
    *(key(f"n{kind}", kind, -0.5) for kind in (6, 12)),
    key("text", STRING, "ü and\0zero"),
    key("none", ARRAY, (4, [])),
    key("numbers", ARRAY, (6, [1.5, -2.0])),
    key("truths", ARRAY, (7, [1, 0])),
    key("tokens", ARRAY, (STRING, ["a", "", "ü" * 200, "\0" * 9, "end"])),
    key("nested", ARRAY, (ARRAY, [(4, [1, 2]), (STRING, ["x"]), (ARRAY, [(0, [7])])])),
]
WHOLE = gguf_bytes({"x": X, "y": X}, KEYS)


def write(path, content):
    path.unlink(missing_ok=True)  # the file before it may still be mapped
    path.write_bytes(content)
    return path


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        GgufFile(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(path) in message
    return message


def refused_cheaply(path):
    """The promise is 64 MiB and 100 ms, of which only ten times as much is a failure."""
    begin = time.perf_counter()
    message = refused(path)
    assert time.perf_counter() - begin < 1
    tracemalloc.start()
    refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    return message


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_metadata_is_read(tmp_path, version):
    content = gguf_bytes({"x": X}, KEYS, version)
    metadata = GgufFile(write(tmp_path / "x.gguf", content)).metadata
    assert [metadata[f"n{kind}"] for kind in (0, 1, 2, 3, 4, 5, 10, 11)] == [1] * 8
    assert metadata["n7"] is True
    assert metadata["n6"] == metadata["n12"] == -0.5
    assert metadata["text"] == "ü and\0zero"
    assert metadata["none"].shape == (0,)
    assert metadata["numbers"].tolist() == [1.5, -2.0]
    assert metadata["truths"].tolist() == [True, False]
    assert list(metadata["tokens"]) == ["a", "", "ü" * 200, "\0" * 9, "end"]
    assert metadata["tokens"][-1] == "end"
    first, second, third = metadata["nested"]
    assert (first.tolist(), list(second), third[0].tolist()) == ([1, 2], ["x"], [7])


def test_tensors_are_views_of_the_file(tmp_path):
    file = GgufFile(write(tmp_path / "x.gguf", WHOLE))
    assert {name: str(tensor) for name, tensor in file.tensors.items()} == {
        "x": "F32 (2, 4)",
        "y": "F32 (2, 4)",
    }
    assert file.view("y").tobytes() == F32.tobytes()
    assert not file.view("y").flags.writeable


@pytest.mark.parametrize("alignment", [8, 64, 65536])
def test_alignment_of_the_file_is_followed(tmp_path, alignment):
    keys = [key("general.alignment", 4, alignment)]
    content = gguf_bytes({"x": X, "y": X}, keys, alignment=alignment)
    assert (GgufFile(write(tmp_path / "x", content)).floats("y").ravel() == F32).all()


def test_vocabulary_of_any_strings_is_read(tmp_path):
    """Runs of usual strings, and between them what breaks the fast way of finding them."""
    rng = np.random.default_rng(0)
    odd = ["", "\0" * 7, "x\0\0\0\0\0\0\0\0y", "a" * 255, "b" * 256, "c" * 70_000, "\1" + "\0" * 7]
    tokens = []
    for _ in range(40):
        tokens += ["t" * n for n in rng.integers(1, 20, rng.integers(1, 1500))]
        tokens += [odd[i] for i in rng.integers(0, len(odd), 3)]
    keys = [key("tokens", ARRAY, (STRING, tokens)), key("after", 4, 7)]
    metadata = GgufFile(write(tmp_path / "x", gguf_bytes({}, keys))).metadata
    assert list(metadata["tokens"]) == tokens
    assert metadata["tokens"][5:8] == tokens[5:8]
    assert metadata["after"] == 7


def test_a_token_that_is_not_utf8_is_named(tmp_path):
    content = gguf_bytes({}, [key("tokens", ARRAY, (STRING, ["a", b"\xff"]))])
    file = GgufFile(write(tmp_path / "x.gguf", content))
    with pytest.raises(CheckpointError, match=r"string 1 of tokens in .*x\.gguf: expected UTF-8"):
        list(file.metadata["tokens"])


def test_every_truncation_is_refused(tmp_path):
    for size in range(len(WHOLE)):
        refused(write(tmp_path / "x.gguf", WHOLE[:size]))


def test_random_damage_never_escapes_as_another_error(tmp_path):
    end = len(WHOLE) - 64
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(WHOLE)
        for at in rng.integers(0, end, rng.integers(1, 4)):
            damaged[at] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        path = write(tmp_path / "x.gguf", damaged)
        try:
            file = GgufFile(path)
        except CheckpointError:
            refused(path)
        else:
            for name in file.tensors:
                assert len(file.view(name)) > 0


def one(*entries, keys=(), data=bytes(64)):
    return padded(head(keys, entries)) + data


def tokens_key(count, kind=STRING):
    """A key whose array claims ``count`` elements; what follows is up to the caller."""
    return string("tokens") + u32(ARRAY) + u32(kind) + u64(count)


NESTED = string("deep") + u32(ARRAY) + (u32(ARRAY) + u64(1)) * 2000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected GGUF, got an empty file"),
        (b"<!DOCTYPE html>", "expected a GGUF file, got an HTML page"),
        (b"FUGG" + bytes(60), "expected a GGUF file, got another file"),
        (head(version=1), "version: expected 2 or 3, got 1"),
        (head(version=4), "version: expected 2 or 3, got 4"),
        (b"GGUF\0\0\0\3" + bytes(16), "expected little-endian GGUF, got a big-endian file"),
        (b"GGUF" + u32(3) + u64(2**64 - 1) + u64(0), "expected at most 4096 tensors, got 1844"),
        (b"GGUF" + u32(3) + u64(0) + u64(2**63), "expected at most 1024 metadata keys, got 9223"),
        (head([u64(2**64 - 1)]), "expected a string of at most 4194304 bytes, got 1844674"),
        (head([string("a") + u32(13)]), "a: expected a value type from 0 to 12, got 13"),
        (head([string("") + u32(4) + u32(0)]), "metadata key 0: expected a new key, got none"),
        (head([key("a", 4, 1)] * 2), "a: expected a new key, got it twice"),
        (head([key(b"\xff", 4, 1)]), "metadata key 0: expected UTF-8, got byte 0"),
        (head([key("a", 7, 2)]), "a: expected true (1) or false (0), got 2"),
        (head([key("a", 6, float("nan"))]), "a: expected a finite number, got nan"),
        (head([key("a", 12, float("inf"))]), "a: expected a finite number, got inf"),
        (head([key("a", ARRAY, (7, [0, 3]))]), "a: expected true (1) or false (0), got 3"),
        (head([tokens_key(2**61)]), "tokens: expected 18446744073709551616 bytes at byte"),
        (head([tokens_key(2**64 - 1, 12)]), "tokens: expected 147573952589676412920 bytes at"),
        (head([tokens_key(2**63, ARRAY)]), "tokens: expected at most 1024 arrays, got 9223"),
        (head([tokens_key(2) + u64(2**64 - 8) + u64(0)]), "it is truncated or damaged"),
        (head([NESTED]), "deep: expected arrays in at most 4 levels, got more"),
        (
            one(entry("x", (4,), 0, 0), entry("x", (4,), 0, 32)),
            "x: expected a new name, got it twi",
        ),
        (one(entry("", (4,), 0, 0)), "tensor 0: expected a new name, got none"),
        (
            one(entry("x" * 65, (4,), 0, 0)),
            "tensor 0: expected a string of at most 64 bytes, got 65",
        ),
        (one(entry("x", (), 0, 0)), "x: expected 1 to 4 dimensions, got 0"),
        (one(entry("x", (1,) * 5, 0, 0)), "x: expected 1 to 4 dimensions, got 5"),
        (
            one(entry("x", (4, 0), 0, 0)),
            "x: shape: expected lengths from 1 to 2^31 - 1, got (4, 0)",
        ),
        (one(entry("x", (2**63, 2), 0, 0)), "x: shape: expected lengths from 1 to 2^31 - 1"),
        (one(entry("x", (2**30,) * 4, 0, 0)), "x: expected a file of 53169119831396634916152"),
        (one(entry("x", (4,), 57, 0)), "x: expected a known tensor type, got number 57"),
        (one(entry("x", (255,), 34, 0)), "x: expected a shape that TQ1_0 can have, got (255)"),
        (one(entry("x", (4,), 0, 16)), "x: offset: expected a multiple of 32, got 16"),
        (
            one(entry("x", (4,), 0, 64)),
            "x: expected a file of 144 bytes or more, got 128, it is tr",
        ),
        (one(entry("x", (4,), 0, 2**64 - 32)), "x: expected a file of 184467440737095516"),
        (one(entry("x", (9,), 0, 0), entry("y", (4,), 0, 32)), "x: expected 36 bytes of its own"),
        (one(entry("x", (4,), 0, 32), entry("y", (4,), 0, 32)), "expected 16 bytes of its own"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path, content, expected):
    assert expected in refused_cheaply(write(tmp_path / "x.gguf", content))


@pytest.mark.parametrize(
    "alignment",
    [(4, 0), (4, 3), (4, 4), (4, 48), (4, 2**31), (6, 32.0), (STRING, "32"), (ARRAY, (4, [32]))],
)
def test_an_alignment_that_is_no_fit_power_of_two_is_refused(tmp_path, alignment):
    content = one(entry("x", (4,), 0, 0), keys=[key("general.alignment", *alignment)])
    message = refused(write(tmp_path / "x.gguf", content))
    assert "general.alignment: expected a power of two from 8 to 65536, got" in message


SHORT = u64(7) + b"letters"
TRUTHS = u32(ARRAY) + u32(7) + u64(20_000) + bytes(20_000)
LARGE = {
    "short strings": (lambda: head([tokens_key(1 << 20) + SHORT * (1 << 20), b"!"]), "key 1: "),
    "many strings": (lambda: head([tokens_key(3 << 19) + SHORT * (3 << 19)]), "1048576 strings"),
    "empty strings": (lambda: head([tokens_key(1 << 20) + bytes(8 << 20)]), "32768 strings that"),
    "long header": (lambda: head([tokens_key(32 << 20, 1) + bytes(32 << 20)]), "header of at most"),
    "texts": (lambda: head([key(f"{i}", STRING, "é" * 9000) for i in range(300)]), "of strings, "),
    "truths": (lambda: head([*(string(f"{i}") + TRUTHS for i in range(1000)), b"!"]), "key 1000: "),
    "tensors": (lambda: head([], [entry(f"{i}", (1,), 0, 0) for i in range(4096)]), "0: expect"),
    "arrays": (lambda: head([key("a", ARRAY, (ARRAY, [(4, [])] * 1024))]), "at most 1024 arrays"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_hostile_header_costs_little(tmp_path, name):
    content, expected = LARGE[name]
    assert expected in refused_cheaply(write(tmp_path / "x.gguf", content()))


def test_what_is_no_readable_file_is_told(tmp_path):
    assert "file not found" in refused(tmp_path / "none.gguf")
    assert "expected a GGUF file, got a directory" in refused(tmp_path)
