"""benchmarks/gguf_model.py: the GGUF files that llama.cpp is measured with hold our weights."""

import gguf
import gguf_model
import numpy as np
import pytest
from random_model import SHAPES, Shape, write_random_model

from bitinfer import _core
from bitinfer.families.spec import EMBEDDING
from bitinfer.formats.packed import PACKED_NAME, PackedFile

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 700,
    "bos_token_id": 698,
    "eos_token_id": 699,
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "small"
    shape = Shape({**SHAPES["bitnet-700m"].config, **SMALL}, sub_norms=True)
    write_random_model(shape, folder, packing="t5")
    return folder


@pytest.fixture(
    scope="module", params=[("TQ1_0", "Q6_K"), ("TQ2_0", "Q6_K"), ("TQ2_0", "F16"), ("F16", "F16")]
)
def written(request, packed, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    gguf_model.write_gguf(packed, path, *request.param)
    return PackedFile(packed / PACKED_NAME), gguf.GGUFReader(path), *request.param


def values(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def test_every_ternary_weight_is_the_same(written):
    file, reader, quant, _ = written
    tensors = {t.name: t for t in reader.tensors}
    assert len(tensors) == len(file.header.ternary) + 2 * 4 + 2
    for name, (n, k) in file.header.ternary.items():
        tensor = tensors[gguf_model.gguf_name(name)]
        assert tensor.tensor_type.name == quant
        weights = _core.unpack(file.tensor(name)[0], file.header.packing, n, k)
        scale = file.tensor(f"{name}_scale")[0].view(np.float32)[0]
        np.testing.assert_allclose(values(tensor), weights * scale, rtol=2**-10)  # an f16 scale


def test_an_embedding_in_f16_is_the_same(written):
    file, reader, _, embedding = written
    tensor = next(t for t in reader.tensors if t.name == "token_embd.weight")
    assert tensor.tensor_type.name == embedding
    if embedding == "F16":
        bits = file.tensor(EMBEDDING)[0].view(np.uint16).astype(np.uint32) << 16
        assert (values(tensor).ravel() == bits.view(np.float32)).all()  # f16 holds bf16 near 1


def test_the_spec_is_the_same(written):
    file, reader, *_ = written
    spec = file.header.spec
    read = {name.partition(".")[2]: field.contents() for name, field in reader.fields.items()}
    assert read["block_count"] == spec["num_hidden_layers"]
    assert read["embedding_length"] == spec["hidden_size"]
    assert read["attention.head_count_kv"] == spec["num_key_value_heads"]
    assert read["vocab_size"] == spec["vocab_size"]


def test_q6_k_is_read_back_within_half_a_step():
    rows = np.random.default_rng(0).standard_normal((5, 768), np.float32)
    rows[1] = 0
    rows[2, :16] = 0
    rows[3] *= 1e-3
    read = gguf.quants.dequantize(gguf_model.q6_k(rows), gguf.GGMLQuantizationType.Q6_K)
    largest = np.abs(rows.reshape(5, -1, 16)).max(axis=2, keepdims=True)
    block_largest = np.abs(rows.reshape(5, -1, 16, 16)).max(axis=(2, 3))
    # Half a step of 1/31, a scale rounded to 1/127 of the block's largest, and f16.
    bound = largest / 31 * 0.52 + block_largest.repeat(16, axis=1)[:, :, None] / 127
    error = np.abs(read - rows).reshape(5, -1, 16)
    assert (error <= bound).all()
    assert not read[1].any()
