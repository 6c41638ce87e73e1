import json
import struct

import numpy as np
import pytest
from checkpoints import (
    TINY,
    make_tensors,
    read_header,
    tiny_checkpoint,
    write_checkpoint,
    write_raw,
)
from safetensors.numpy import save_file

from bitinfer.errors import CheckpointError
from bitinfer.formats.safetensors import Checkpoint, SafetensorsFile, as_float32

A = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_tensors_written_by_the_library_are_read_back(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "b": np.array(1.5, np.float32),
        "c": np.zeros((0, 4), np.float16),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert file.metadata == {"format": "pt"}
    assert {n: i.shape for n, i in file.tensors.items()} == {"a": (2, 3), "b": (), "c": (0, 4)}
    for name, value in tensors.items():
        assert file.view(name).tobytes() == value.tobytes()


def test_views_are_read_only_and_share_the_mapping(tmp_path):
    save_file({"a": np.arange(8, dtype=np.uint8)}, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    view = file.view("a")
    assert not view.flags.writeable
    assert np.shares_memory(view, file.content())


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle(tmp_path):
    text = json.dumps({"a": A}).encode().ljust(640)  # its length begins with the bytes 80 02
    assert SafetensorsFile(write_raw(tmp_path / "x", text, b"1234")).view("a").tobytes() == b"1234"


@pytest.mark.parametrize(
    ("header", "data", "expected"),
    [
        ({"a": A}, b"123", "expected a file of"),
        ({"a": A}, b"12345", "file size: expected"),
        ({"a": {**A, "dtype": "Q4"}}, b"1234", "dtype: expected one of"),
        ({"a": {**A, "dtype": 3}}, b"1234", "dtype: expected one of"),
        ({"a": {**A, "shape": [2]}}, b"1234", "a: expected 2 bytes of U8 (2), got 4"),
        ({"a": {**A, "shape": [-4]}}, b"1234", "shape: expected whole numbers, got [-4]"),
        ({"a": {**A, "shape": [1 << 62, 1 << 62]}}, b"1234", "a: expected 2126764793"),
        ({"a": {**A, "shape": [1] * 9}}, b"1234", "shape: expected whole numbers"),
        ({"a": {**A, "shape": [4.0]}}, b"1234", "shape: expected whole numbers"),
        ({"a": {**A, "data_offsets": [4, 0]}}, b"1234", "data_offsets: expected begin, end"),
        ({"a": {**A, "data_offsets": [0]}}, b"1234", "data_offsets: expected begin, end"),
        ({"a": {"dtype": "U8"}}, b"1234", "expected dtype, shape and data_offsets"),
        ({"a": []}, b"", "expected dtype, shape and data_offsets"),
        ({"a": {**A, "data_offsets": [1, 5]}}, b"12345", "expected to begin at byte 0, got a hole"),
        (
            {"a": A, "b": {**A, "data_offsets": [2, 6]}},
            b"123456",
            "b: expected to begin at byte 4, got an overlap: 2",
        ),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__: expected an object of strings"),
        (b'{"a": 1, "a": 2}', b"", 'the key "a" stands twice'),
        (b'{"a": ', b"", "expected a JSON object"),
        (b'{"\xff": 1}', b"", "expected UTF-8 JSON"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path, header, data, expected):
    assert expected in refused(write_raw(tmp_path / "x.safetensors", header, data))


def test_header_length_beyond_the_limit_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    assert "header: expected at most 100000000 bytes, got 1099511627776" in refused(path)


@pytest.mark.parametrize("size", [1, 7, 8])
def test_a_file_shorter_than_a_header_is_refused(tmp_path, size):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x10" * size)
    assert f"got {size} bytes without a header of that format: download it again" in refused(path)


def test_every_truncation_of_a_file_is_refused(tmp_path):
    save_file({"a": np.arange(40, dtype=np.float32)}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for size in range(len(content)):
        path = tmp_path / f"{size}.safetensors"
        path.write_bytes(content[:size])
        refused(path)


def test_random_damage_to_a_header_never_escapes_as_another_error(tmp_path):
    save_file({"a": np.arange(8, dtype=np.float32), "b": np.ones(3)}, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(content)
        for at in rng.integers(0, header_end, rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        path = tmp_path / "damaged.safetensors"
        path.unlink(missing_ok=True)
        path.write_bytes(damaged)
        try:
            SafetensorsFile(path)
        except CheckpointError:
            refused(path)


def shards(tmp_path):
    tensors, _ = make_tensors(TINY)
    return write_checkpoint(tmp_path / "m", TINY, tensors, shards=3), tensors


def checkpoint_error(folder):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    return str(caught.value)


def edit_index(folder, edit):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index["weight_map"])
    path.write_text(json.dumps(index))


def test_shards_hold_together_all_tensors(tmp_path):
    folder, tensors = shards(tmp_path)
    checkpoint = Checkpoint(folder)
    assert set(checkpoint.tensors) == set(tensors)
    for name, value in tensors.items():
        assert checkpoint.view(name).tobytes() == value.tobytes()


def test_a_missing_shard_is_named(tmp_path):
    folder, _ = shards(tmp_path)
    (folder / "model-00002-of-00003.safetensors").unlink()
    message = checkpoint_error(folder)
    assert "model-00002-of-00003.safetensors: file not found, which should hold model." in message
    assert message.endswith(" and 12 more by model.safetensors.index.json: download it")


def test_a_missing_index_is_named(tmp_path):
    folder, _ = shards(tmp_path)
    (folder / "model.safetensors.index.json").unlink()
    mend = "there are shards, download model.safetensors.index.json to them"
    assert f"model.safetensors: file not found: {mend}" in checkpoint_error(folder)


def test_a_tensor_that_is_in_no_shard_is_named(tmp_path):
    folder, _ = shards(tmp_path)
    edit_index(folder, lambda m: m.update(extra="model-00002-of-00003.safetensors"))
    assert "extra: expected in model-00002-of-00003.safetensors" in checkpoint_error(folder)


def test_a_tensor_that_the_index_does_not_place_is_named(tmp_path):
    folder, _ = shards(tmp_path)
    edit_index(folder, lambda m: m.pop("model.norm.weight"))
    assert "model.norm.weight: expected in no shard" in checkpoint_error(folder)


def test_a_tensor_in_two_shards_is_named(tmp_path):
    folder, tensors = shards(tmp_path)
    path = folder / "model-00001-of-00003.safetensors"
    held = {n: tensors[n] for n in SafetensorsFile(path).tensors}
    twice = next(name for name in tensors if name not in held)
    path.unlink()
    save_file({**held, twice: tensors[twice]}, path)
    message = checkpoint_error(folder)
    assert message.startswith(f"{twice}: expected in model-0000")
    assert message.endswith(f"{path.name} as well: download both again")


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/x.safetensors", "a\\b.safetensors", 3, "x"]
)
def test_a_shard_name_that_leaves_the_folder_is_refused(tmp_path, shard):
    folder, _ = shards(tmp_path)
    edit_index(folder, lambda m: m.update({"model.norm.weight": shard}))
    assert "expected the name of a shard beside the index" in checkpoint_error(folder)


def test_a_folder_without_weights_says_what_it_holds(tmp_path):
    assert "model.safetensors: file not found: download it" in checkpoint_error(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    assert "pytorch_model.bin is not read, use the safetensors" in checkpoint_error(tmp_path)
    assert "found nothing there: check the path" in checkpoint_error(tmp_path / "none")
    file = tiny_checkpoint(tmp_path / "m") / "config.json"
    assert "expected a model folder, got a file: give the folder" in checkpoint_error(file)
    (tmp_path / "x").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "expected a model folder, got a Git LFS pointer" in checkpoint_error(tmp_path / "x")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_floats_of_each_dtype_are_read(dtype):
    values = np.array([1.5, -0.0, 3.0, np.inf, 2.0**-14], np.float32)
    stored = {
        "F32": values.tobytes(),
        "F16": values.astype(np.float16).tobytes(),
        "BF16": (values.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
    }[dtype]
    read = as_float32(np.frombuffer(stored, np.uint8), dtype)
    assert read.tobytes() == values.tobytes()


def test_the_helper_reads_what_it_wrote(tmp_path):
    header, data = read_header(write_raw(tmp_path / "x", {"a": A}, b"1234"))
    assert (header, data) == ({"a": A}, b"1234")
