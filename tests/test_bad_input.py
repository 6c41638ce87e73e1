"""Everything that may stand in place of a model gives one line: what, where, expected, mend."""

import json

import numpy as np
import pytest
from checkpoints import (
    DENSE,
    LLAMA,
    TINY,
    damage,
    make_tensors,
    read_header,
    tiny_checkpoint,
    write_checkpoint,
    write_raw,
)
from tokenizers import Tokenizer as Backend, models

from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import BitinferError
from bitinfer.families import FAMILIES
from bitinfer.formats.packed import PACKED_NAME
from bitinfer.model import Model

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
IMPOSTORS = [
    (b"", "an empty file: download it again"),
    (LFS, "a Git LFS pointer: run 'git lfs pull' to fetch the real file"),
    (HTML, "an HTML page: a login or error page was saved: download the file again"),
    (b"PK\x03\x04rest", "a zip or PyTorch archive: use the model's safetensors checkpoint"),
    (b"GGUF\x03\0\0\0rest", "a GGUF file: name it .gguf and give its path as the model"),
]
SCALE = "model.layers.0.mlp.down_proj.weight_scale"
FILE = "model.safetensors"


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
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04")
    fails_everywhere(
        tmp_path / "model.bin", "expected a model folder, got a zip or PyTorch archive"
    )
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    fails_everywhere(tmp_path / "model.gguf", "header: expected 8 bytes at byte 8, got 0")


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


DOWN = "model.layers.0.mlp.down_proj.weight"
ONLY_PROJECTIONS = "only the projections of the layers can be ternary"
BITNET = {"quant_method": "bitnet"}
LIES = {  # changes of the Llama form's config and tensors (None: taken away), parts of the line
    "a scale for each row": (
        {},
        {f"{DOWN}_scale": np.ones((24, 1), np.float32)},
        (f"{DOWN}_scale: expected BF16 or F16 or F32 (1), got F32 (24, 1) in ", FILE),
    ),
    "a ternary head": (
        {},
        {
            "lm_head.weight": np.zeros((13, 24), np.uint8),
            "lm_head.weight_scale": np.ones(1, np.float32),
        },
        ("lm_head.weight: expected BF16 or F16", "got U8 (13, 24)", FILE, ONLY_PROJECTIONS),
    ),
    "a ternary embedding": (
        {},
        {
            "model.embed_tokens.weight": np.zeros((13, 24), np.uint8),
            "model.embed_tokens.weight_scale": np.ones(1, np.float32),
        },
        ("model.embed_tokens.weight: expected ", FILE, ONLY_PROJECTIONS),
    ),
    "a dense projection": (
        {},
        {DOWN: np.ones((24, 40), np.float16), f"{DOWN}_scale": None},
        (f"{DOWN}: expected U8 (6, 40) and a weight_scale, got F16 (24, 40) alone in ", FILE),
    ),
    "a dense projection with a scale": (
        {},
        {DOWN: np.full((24, 40), 0.5, np.float32)},
        (f"{DOWN}: row 0, column 0: expected -1, 0 or 1", "got 0.5 in ", FILE),
    ),
    "a projection that is excluded": (
        {"quantization_config": {**BITNET, "modules_to_not_convert": ["lm_head", "down_proj"]}},
        {},
        ("config.json: ", "modules_to_not_convert: down_proj: ", DOWN[:-7] + " left dense"),
    ),
    "an unknown linear_class": (
        {"quantization_config": {**BITNET, "linear_class": "ternarylinear"}},
        {},
        (
            "config.json: quantization_config: linear_class: expected bitlinear or autobitlinear",
            "got 'ternarylinear': no other way of quantizing is supported",
        ),
    ),
    "a rope type that does not run": (
        {"rope_scaling": {"rope_type": "longrope", "factor": 4.0}},
        {},
        ("config.json: rope_scaling: rope_type: expected one of default, linear", "'longrope'"),
    ),
    "a head of another vocabulary": (
        {"vocab_size": 40},
        {},
        ("model.embed_tokens.weight: expected BF16 or F16 or F32 (40, 24), got F32 (50, 24)",),
    ),
}


@pytest.mark.parametrize(("config", "changes", "expected"), LIES.values(), ids=LIES)
def test_a_checkpoint_that_lies(tmp_path, config, changes, expected):
    tensors = {**make_tensors(LLAMA)[0], **changes}
    left = {name: value for name, value in tensors.items() if value is not None}
    fails_everywhere(write_checkpoint(tmp_path / "hf", {**LLAMA, **config}, left), *expected)


def test_a_tensor_that_stands_twice_in_a_file(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf")
    header, data = read_header(folder / FILE)
    again = json.dumps({"model.norm.weight": header["model.norm.weight"]})
    write_raw(folder / FILE, f"{json.dumps(header)[:-1]}, {again[1:]}".encode(), data)
    fails_everywhere(folder, FILE, '"model.norm.weight" stands twice: download it again')


def test_a_missing_shard(tmp_path):
    folder = write_checkpoint(tmp_path / "hf", TINY, make_tensors(TINY)[0], shards=2)
    shard = "model-00002-of-00002.safetensors"
    (folder / shard).unlink()
    fails_everywhere(folder, f"{shard}: file not found, which should hold model.", "download it")


def test_a_tokenizer_that_is_larger_than_the_embedding(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf")
    Backend(models.WordLevel({str(i): i for i in range(51)}, "0")).save(
        str(folder / "tokenizer.json")
    )
    one_line(
        lambda: Model.load(folder),
        "tokenizer.json in ",
        "expected token ids below 50 (rows of the embedding), got 50",
        "take both from one source",
    )


def test_an_embedding_that_is_no_number(tmp_path):
    tensors, _ = make_tensors(TINY)
    tensors["model.embed_tokens.weight"][9, 3] = np.nan
    folder = write_checkpoint(tmp_path / "hf", TINY, tensors)
    for run in (lambda: Engine.load(folder), lambda: convert(folder, tmp_path / "packed")):
        one_line(run, "model.embed_tokens.weight", "row 9, column 3", str(folder))


def test_a_norm_that_is_no_number(tmp_path):
    name = "model.layers.1.input_layernorm.weight"
    tensors, _ = make_tensors(TINY)
    tensors[name][3] = np.inf
    folder = write_checkpoint(tmp_path / "hf", TINY, tensors)
    wrong = f"{name}: expected finite numbers, got inf at 3 in {folder}"
    fails_everywhere(folder, wrong, "the file is damaged, download it again")
    packed = convert(tiny_checkpoint(tmp_path / "right"), tmp_path / "packed")
    damage(packed / PACKED_NAME, name, np.float32(np.inf).tobytes(), at=12)
    wrong = f"{name}: expected finite numbers, got inf at 3 in {packed}"
    one_line(lambda: Engine.load(packed), wrong, "the file is damaged, get it again")


def test_a_config_of_another_model(tmp_path):
    folder = tiny_checkpoint(tmp_path / "hf")
    (folder / "config.json").write_text(json.dumps({**TINY, "num_hidden_layers": 3}))
    fails_everywhere(folder, "model.layers.2.", "are missing", "check that config.json belongs to")


def test_a_packed_folder_of_a_newer_version(tmp_path):
    folder = convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed")
    path = folder / PACKED_NAME
    old, new = b'"format_version":"2"', b'"format_version":"3"'
    path.write_bytes(path.read_bytes().replace(old, new))
    one_line(lambda: Engine.load(folder), "format_version: expected 1 to 2, got 3: update bitinfer")


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
