"""Everything that may stand in place of a model gives one line: what, where, expected, mend."""

import json

import numpy as np
import pytest
from checkpoints import DENSE, TINY, damage, make_tensors, tiny_checkpoint, write_checkpoint

from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import BitinferError
from bitinfer.families import FAMILIES
from bitinfer.formats.packed import PACKED_NAME

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
IMPOSTORS = [
    (b"", "an empty file: download it again"),
    (LFS, "a Git LFS pointer: run 'git lfs pull' to fetch the real file"),
    (HTML, "an HTML page: a login or error page was saved: download the file again"),
    (b"PK\x03\x04rest", "a zip or PyTorch archive: use the model's safetensors checkpoint"),
    (b"GGUF\x03\0\0\0rest", "a GGUF file: use the model's safetensors checkpoint"),
]
SCALE = "model.layers.0.mlp.down_proj.weight_scale"


def one_line(run, *expected):
    """Run what must fail; its message is one line that holds all of ``expected``."""
    with pytest.raises(BitinferError) as caught:
        run()
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    for text in expected:
        assert text in message
    return message


def fails_everywhere(folder, *expected):
    """Loading and converting give the same line, and converting leaves nothing."""
    loading = one_line(lambda: Engine.load(folder), *expected)
    target = folder.with_name("target")
    before = sorted(path.name for path in folder.parent.iterdir())
    assert one_line(lambda: convert(folder, target)) == loading
    assert sorted(path.name for path in folder.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize(("content", "expected"), IMPOSTORS, ids=lambda v: str(v)[:12])
def test_something_else_in_place_of_a_file(tmp_path, name, content, expected):
    folder = tiny_checkpoint(tmp_path / "hf")
    (folder / name).write_bytes(content)
    fails_everywhere(folder, name, str(folder), "expected ", expected)


@pytest.mark.parametrize(("content", "expected"), IMPOSTORS, ids=lambda v: str(v)[:12])
def test_something_else_in_place_of_a_packed_file(tmp_path, content, expected):
    folder = convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed")
    (folder / PACKED_NAME).write_bytes(content)
    one_line(lambda: Engine.load(folder), str(folder / PACKED_NAME), expected)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file(tmp_path, name):
    folder = tiny_checkpoint(tmp_path / "hf")
    (folder / name).unlink()
    fails_everywhere(folder, name, str(folder), "file not found", "download it")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_directory_in_place_of_a_file(tmp_path, name):
    folder = tiny_checkpoint(tmp_path / "hf")
    (folder / name).unlink()
    (folder / name).mkdir()
    fails_everywhere(folder, name, "got a directory")


def test_a_missing_folder(tmp_path):
    fails_everywhere(tmp_path / "none", "expected a model folder, found nothing there: check the")


def test_a_path_that_no_file_system_takes(tmp_path):
    folder = tmp_path / ("x" * 300)
    one_line(lambda: Engine.load(folder), "cannot be read: File name too long")
    one_line(lambda: convert(folder, tmp_path / "packed"), "cannot be read: File name too long")


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    fails_everywhere(tmp_path / "model.gguf", "expected a model folder, got a GGUF file")


def test_a_truncated_checkpoint(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf")
    path = folder / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    fails_everywhere(folder, str(path), f"expected a file of {size} bytes, got {size - 100}")


def test_a_truncated_packed_file(tmp_path):
    folder = convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed")
    path = folder / PACKED_NAME
    path.write_bytes(path.read_bytes()[:-1])
    one_line(lambda: Engine.load(folder), str(path), "it is truncated: download it again")


def test_an_unknown_architecture(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf", {**TINY, "architectures": ["BitNetModel"]})
    known = [name for family in FAMILIES for name in family.architectures]
    fails_everywhere(folder, "config.json", f"expected one of {', '.join(known)}, got BitNetModel")


def test_a_dense_model(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf", DENSE, form="master")
    fails_everywhere(folder, "the model is dense, not ternary", "--ternarize absmean")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (SCALE, np.array([np.nan], np.float32), "expected a finite scale above 0, got nan"),
        (SCALE, np.array([0], np.float16), "expected a finite scale above 0, got 0.0"),
        (SCALE, np.array([-2], np.float32), "expected a finite scale above 0, got -2.0"),
        (SCALE[:-6], np.zeros((6, 39), np.uint8), "expected U8 (6, 40), got U8 (6, 39)"),
        (SCALE[:-6], np.full((6, 40), 255, np.uint8), "row 0, column 0"),
        ("model.norm.weight", np.ones(24, np.int32), "F32 (24), got I32 (24)"),
    ],
)
def test_a_wrong_tensor(tmp_path, name, value, expected):
    folder = write_checkpoint(tmp_path / "hf", TINY, {**make_tensors(TINY)[0], name: value})
    fails_everywhere(folder, f"{name}", expected, str(folder / "model.safetensors"))


def test_an_embedding_that_is_no_number(tmp_path):
    tensors, _ = make_tensors(TINY)
    tensors["model.embed_tokens.weight"][9, 3] = np.nan
    folder = write_checkpoint(tmp_path / "hf", TINY, tensors)
    for run in (lambda: Engine.load(folder), lambda: convert(folder, tmp_path / "packed")):
        one_line(run, "model.embed_tokens.weight", "row 9, column 3", str(folder))


def test_a_config_of_another_model(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf")
    (folder / "config.json").write_text(json.dumps({**TINY, "num_hidden_layers": 3}))
    fails_everywhere(folder, "model.layers.2.", "are missing", "check that config.json belongs to")


def test_a_packed_folder_of_a_newer_version(tmp_path):
    folder = convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed")
    path = folder / PACKED_NAME
    old, new = b'"format_version":"1"', b'"format_version":"2"'
    path.write_bytes(path.read_bytes().replace(old, new))
    one_line(lambda: Engine.load(folder), "format_version: expected 1, got 2: update bitinfer")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (SCALE, np.float32(np.nan).tobytes(), "expected a finite scale above 0, got nan"),
        (SCALE[:-6], b"\xff", "row 0, column 0"),
        ("lm_head.weight", b"\x80", "expected int8 codes from -127 to 127"),
    ],
)
def test_damage_in_a_packed_file(tmp_path, name, change, expected):
    folder = convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed", packing="i2")
    path = folder / PACKED_NAME
    damage(path, name, change)
    one_line(lambda: Engine.load(folder), name, expected, str(path), "convert it again")
