"""formats/gguf.py against the gguf package: its writer, its encoders and its dequantizers."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

from bitinfer.formats.gguf import GgufFile

TERNARY = ("TQ1_0", "TQ2_0")
FLOATS = {"F32": None, "F16": None, "BF16": None, "Q8_0": 34, "Q6_K": 210, "Q4_0": 18, "Q4_1": 20}


def write(path, tensors, keys=()):
    writer = GGUFWriter(path, "bitnet-b1.58")
    for add, *arguments in keys:
        getattr(writer, add)(*arguments)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


@pytest.mark.parametrize("name", TERNARY)
def test_ternary_tensors_of_the_package_are_read_exactly(tmp_path, name):
    kind = GGMLQuantizationType[name]
    weights = np.random.default_rng(0).integers(-1, 2, (96, 768)).astype(np.float32) * 1.5
    matrix = write(tmp_path / "x.gguf", {"x": (quants.quantize(weights, kind), kind)}).trits("x")
    assert (matrix.scales.tolist(), matrix.group) == ([1.5], None)
    assert (matrix.trits * matrix.scales[0] == weights).all()
    scaled = weights * np.exp2(np.arange(96) % 7)[:, None].astype(np.float32)
    data = quants.quantize(scaled, kind)
    matrix = write(tmp_path / "y.gguf", {"x": (data, kind)}).trits("x")
    values = matrix.trits * matrix.scales.repeat(matrix.group, axis=1)
    assert (values == quants.dequantize(data, kind)).all()


@pytest.mark.parametrize("name", FLOATS)
def test_float_tensors_have_the_bits_of_the_package(tmp_path, name):
    kind = GGMLQuantizationType[name]
    rng = np.random.default_rng(0)
    if FLOATS[name] is None:
        data = quants.quantize(rng.standard_normal((33, 512), np.float32), kind)
    else:  # any blocks at all, but with finite fp16 numbers
        size = FLOATS[name]
        blocks = rng.integers(0, 256, (33, 512 // (256 if name == "Q6_K" else 32), size), np.uint8)
        for at in {"Q6_K": (208,), "Q4_1": (0, 2)}.get(name, (0,)):
            blocks[..., at + 1] &= 0xBF
        data = blocks.reshape(33, -1)
    read = write(tmp_path / "x.gguf", {"x": (data, kind)}).floats("x")
    assert read.tobytes() == quants.dequantize(data, kind).astype(np.float32).tobytes()


def test_metadata_of_the_writer_is_read(tmp_path):
    tokens = [f"token {i}" for i in range(5000)]
    keys = [
        ("add_uint32", "u", 7),
        ("add_int64", "i", -7),
        ("add_float64", "f", 0.1),
        ("add_bool", "b", True),
        ("add_string", "s", "grün"),
        ("add_token_list", tokens),
        ("add_token_scores", [-1.5, 0.0]),
    ]
    file = write(tmp_path / "x.gguf", {"x": (np.ones((2, 3), np.float32), None)}, keys)
    assert [file.metadata[k] for k in "uifbs"] == [7, -7, 0.1, True, "grün"]
    assert file.metadata["general.architecture"] == "bitnet-b1.58"
    assert list(file.metadata["tokenizer.ggml.tokens"]) == tokens
    assert file.metadata["tokenizer.ggml.scores"].tolist() == [-1.5, 0.0]
    assert (file.floats("x") == np.ones((2, 3))).all()
