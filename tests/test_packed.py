import json
import shutil

import numpy as np
import pytest
from checkpoints import TINY, damage, read_header, tiny_checkpoint, write_raw

from bitinfer import _core
from bitinfer.convert import convert
from bitinfer.errors import PackedFileError
from bitinfer.families.check import check_weights
from bitinfer.formats.packed import PACKED_NAME, PackedFile, PackedHeader, PackedWriter

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    return convert(tiny_checkpoint(folder / "hf"), folder / "packed", packing="t5")


@pytest.fixture
def copy(packed, tmp_path):
    """The packed file, to be damaged."""
    return shutil.copyfile(packed / PACKED_NAME, tmp_path / PACKED_NAME)


def rewrite(path, edit):
    header, data = read_header(path)
    edit(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    path.unlink()
    write_raw(path, text, data)


def check(path):
    file = PackedFile(path)
    file.validate_codes()
    check_weights(file, file.header.spec)


def refused(path):
    with pytest.raises(PackedFileError) as caught:
        check(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_packed_matrices_begin_at_multiples_of_64(packed):
    header, data = read_header(packed / PACKED_NAME)
    start = (packed / PACKED_NAME).stat().st_size - len(data)
    begins = [e["data_offsets"][0] for n, e in header.items() if e.get("dtype") in ("U8", "I8")]
    assert start % 64 == 0
    assert begins
    assert all(begin % 64 == 0 for begin in begins)


def test_tensors_come_in_the_order_of_their_alignment(packed):
    header, _ = read_header(packed / PACKED_NAME)
    dtypes = [entry["dtype"] for name, entry in header.items() if name != "__metadata__"]
    assert dtypes == sorted(dtypes, key=["U8", "I8", "F32"].index)


def test_the_safetensors_library_reads_a_packed_file(packed):
    from safetensors import safe_open

    with safe_open(packed / PACKED_NAME, "numpy") as file:
        assert file.metadata()["format_version"] == "2"
        assert file.get_tensor("model.norm.weight").shape == (24,)


def test_tensors_come_as_the_decoder_takes_them(packed):
    file = PackedFile(packed / PACKED_NAME)
    data, packing, shape = file.tensor(NAME)
    assert (packing, shape) == ("t5", (40, 24))
    assert data.ctypes.data % 64 == 0
    assert len(data) == _core.packed_bytes("t5", 40, 24)
    assert file.tensor("lm_head.weight")[1:] == ("i8", (50, 64))
    assert file.tensor("model.embed_tokens.weight")[1:] == ("f32", (50, 24))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format", "pt", 'format: expected "bitinfer-packed", got "pt": make the folder with'),
        ("format_version", "3", "expected 1 to 2, got 3: update bitinfer"),
        ("format_version", "0", "expected 1 to 2, got 0: convert it again"),
        ("format_version", "x\ny", "expected 1 to 2, got x?y: convert it again"),
        ("packing", "i3", "packing: expected i2 or t3 or t5 or b1, got i3"),
        ("packing", "i2", "expected U8 ("),
        ("head", "none", "head: expected int8 or source, got none"),
        ("head", "source", "lm_head.weight: this tensor is not called for by the spec"),
        ("spec", "[]", "spec: expected a JSON object, got list"),
        ("spec", "", "spec: expected a JSON object"),
        (
            "ternary",
            '{"a": [0, 1]}',
            "ternary: a: expected [N, K] or [N, K, columns of a group], got [0, 1]",
        ),
        ("ternary", '{"a": [1, 1]}', "a: expected this ternary matrix, it is missing"),
        ("ternary", "{}", "expected no tensor of this kind, got U8"),
    ],
)
def test_wrong_metadata_is_refused(copy, key, value, expected):
    rewrite(copy, lambda header: header["__metadata__"].update({key: value}))
    assert expected in refused(copy)


def test_a_file_whose_tensors_are_not_aligned_is_refused(copy):
    header, data = read_header(copy)
    copy.unlink()
    write_raw(copy, json.dumps(header).encode() + b" ", data)
    text = copy.read_bytes()
    if (len(text) - len(data)) % 64 == 0:
        copy.unlink()
        write_raw(copy, json.dumps(header).encode() + b"  ", data)
    assert "expected to begin at a multiple of 64" in refused(copy)


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
def test_an_impossible_code_is_named(packed, tmp_path, packing):
    folder = convert(packed.parent / "hf", tmp_path / packing, packing=packing)
    damage(folder / PACKED_NAME, NAME, b"\xff")
    message = refused(folder / PACKED_NAME)
    assert message.startswith(f"{NAME}: ")
    assert "row 0" in message
    assert message.endswith("the file is damaged, convert it again")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (f"{NAME}_scale", np.nan, "expected a finite scale above 0, got nan"),
        (f"{NAME}_scale", 0.0, "expected a finite scale above 0, got 0.0"),
        ("lm_head.weight_scale", -1.0, "expected a finite scale of at least 0, got -1.0"),
        ("lm_head.weight_scale", np.inf, "expected a finite scale of at least 0, got inf"),
    ],
)
def test_a_scale_that_scales_nothing_is_refused(copy, name, value, expected):
    damage(copy, name, np.float32(value).tobytes())
    assert expected in refused(copy)


@pytest.mark.parametrize(("at", "byte"), [(0, b"\x80"), (24, b"\x01")])
def test_an_impossible_code_of_the_int8_head_is_refused(copy, at, byte):
    damage(copy, "lm_head.weight", byte, at)
    assert "expected int8 codes from -127 to 127 and zero padding" in refused(copy)


def test_a_spec_that_the_tensors_do_not_fit_is_refused(copy):
    def edit(header):
        spec = json.loads(header["__metadata__"]["spec"])
        header["__metadata__"]["spec"] = json.dumps({**spec, "num_hidden_layers": 3})

    rewrite(copy, edit)
    assert "model.layers.2." in refused(copy)


def test_a_float_tensor_of_another_shape_is_refused(copy):
    def edit(header):
        header["model.norm.weight"]["shape"] = [1, 24]

    rewrite(copy, edit)
    assert "model.norm.weight: expected bf16 or f16 or f32 (24), got f32 (1, 24)" in refused(copy)


def test_the_writer_demands_its_order_and_all_tensors(tmp_path):
    header = PackedHeader("i2", "source", {}, {}, {})
    tensors = {"b": ("F16", (2,)), "a": ("F32", (2,))}
    writer = PackedWriter(tmp_path / "x", header, tensors)
    assert writer.order == ["a", "b"]
    with pytest.raises(ValueError, match="expected tensor a next, got b"), writer:
        writer.write("b", np.zeros(2, np.float16))
    writer = PackedWriter(tmp_path / "y", header, tensors)
    with pytest.raises(ValueError, match="not all tensors were written: b"), writer:
        writer.write("a", np.zeros(2, np.float32))
    writer = PackedWriter(tmp_path / "z", header, tensors)
    with pytest.raises(ValueError, match="expected 8 more bytes, got 12"), writer:
        writer.write("a", np.zeros(3, np.float32))


def test_the_writer_tells_the_size_of_the_file(tmp_path):
    header = PackedHeader("i2", "source", {}, {}, {})
    with PackedWriter(tmp_path / "x", header, {"a": ("F32", (5,))}) as writer:
        writer.write("a", np.arange(2, dtype=np.float32))
        writer.write("a", np.arange(3, dtype=np.float32))
    assert (tmp_path / "x").stat().st_size == writer.total_bytes


def test_spec_survives_the_round_trip(packed):
    header = PackedFile(packed / PACKED_NAME).header
    assert header.spec["hidden_size"] == TINY["hidden_size"]
    assert header.source["name"] == "hf"
    assert set(header.source["sha256"]) == {"model.safetensors"}
