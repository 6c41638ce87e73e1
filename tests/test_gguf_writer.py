"""GGUF files as they are written, against those that ``gguf_files`` puts together byte by byte."""

import shutil
from collections import namedtuple

import gguf_files
import numpy as np
import pytest

from bitinfer.errors import ExportError
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.gguf_writer import GgufWriter, NewTensor

METADATA = {
    "general.architecture": "llama",
    "a.flag": True,
    "a.count": 7,
    "a.number": 0.5,
    "a.texts": ["ä", "", "b c"],
    "a.integers": np.array([3, -1], np.int32),
    "a.floats": np.array([-2.5], np.float32),
}
KEYS = [
    gguf_files.key("general.architecture", 8, "llama"),
    gguf_files.key("a.flag", 7, True),
    gguf_files.key("a.count", 4, 7),
    gguf_files.key("a.number", 6, 0.5),
    gguf_files.key("a.texts", 9, (8, ["ä", "", "b c"])),
    gguf_files.key("a.integers", 9, (5, [3, -1])),
    gguf_files.key("a.floats", 9, (6, [-2.5])),
]
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
VECTOR = np.arange(5, dtype=np.float16)


def write(path, metadata=METADATA):
    tensors = {"rows": NewTensor("F32", (2, 3)), "vector": NewTensor("F16", (5,))}
    writer = GgufWriter(path, metadata, tensors)
    with writer.create() as sink:
        sink.write("rows", [ROWS[:1], ROWS[1:]])
        sink.write("vector", [VECTOR])
    assert writer.total_bytes == path.stat().st_size
    return path


def test_every_byte_is_where_the_format_has_it(tmp_path):
    tensors = {"rows": (0, (2, 3), ROWS.tobytes()), "vector": (1, (5,), VECTOR.tobytes())}
    path = write(tmp_path / "x.gguf")
    assert path.read_bytes() == gguf_files.gguf_bytes(tensors, KEYS)
    assert (GgufFile(path).floats("rows") == ROWS).all()


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path):
    path = write(tmp_path / "x.gguf")
    old = path.read_bytes()
    writer = GgufWriter(path, {}, {"a": NewTensor("F32", (1,)), "b": NewTensor("F32", (1,))})
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="expected tensor a next, got b"), writer.create() as sink:
        sink.write("b", [one])
    with pytest.raises(ValueError, match="a: expected 4 bytes, got 8"), writer.create() as sink:
        sink.write("a", [one, one])
    with (
        pytest.raises(ValueError, match="not all tensors were written: b"),
        writer.create() as sink,
    ):
        sink.write("a", [one])
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["x.gguf"]


def test_a_disk_without_room_is_told_first(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match=r"x\.gguf: expected 0 MB free on this disk, got 0 MB"):
        write(tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_failing_disk_is_told_in_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"x\.gguf: cannot be written: No such file"):
        write(tmp_path / "gone" / "x.gguf")
