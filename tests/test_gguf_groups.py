"""GGUF files whose blocks or rows have scales of their own: Q2_0, Q1_0, TQ, IQ1_BN, IQ2_BN."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import LLAMA, QWEN3, TINY, make_tensors, write_checkpoint
from gguf_files import BLOCKS, TYPE_NUMBERS, encode_blocks, encode_rows, gguf_bytes
from gguf_models import WIDE, config_keys, gguf_name, model_tensors, permuted

from bitinfer import _core
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import CheckpointError
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.packed import PACKED_NAME, PackedFile

SMALL = {**WIDE, "intermediate_size": 256, "num_hidden_layers": 1}
CONFIG = {**TINY, **SMALL}
IDS = [5, 6, 7, 8, 9]


def grouped_model(path, kind, *, config=CONFIG, arch="bitnet", heads=None, embedding=None):
    """(trits, scales) by module of a random model, in the row order of Hugging Face."""
    rng = np.random.default_rng(0)
    stored, trits = make_tensors(config)
    if kind == "Q1_0":
        trits = {module: np.where(t > 0, 1, -1).astype(np.int8) for module, t in trits.items()}
    tensors = model_tensors(stored, trits, "TQ2_0")
    number = TYPE_NUMBERS[kind.partition("_")[0] + "_0"]
    scales = {}
    for module, t in trits.items():
        shape = (len(t), t.shape[1] // BLOCKS[kind][0])
        scales[module] = rng.uniform(0.5, 2, shape).astype(np.float16)
        rows, own = t, scales[module]
        if heads and module.endswith(("q_proj", "k_proj")):
            count = heads[module.endswith("k_proj")]
            rows, own = permuted(rows, count), permuted(own, count)
        name = gguf_name(f"{module}.weight")
        tensors[name] = (number, t.shape, encode_blocks(kind, rows, own))
    if embedding is not None:
        shape = (config["vocab_size"], config["hidden_size"])
        values = rng.choice([-1, 1], shape).astype(np.int8)
        own = rng.uniform(0.5, 2, (shape[0], shape[1] // BLOCKS[kind][0]))
        tensors["token_embd.weight"] = (number, shape, encode_blocks(kind, values, own))
    path.write_bytes(gguf_bytes(tensors, config_keys(arch, config)))
    return trits, scales


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_trit_and_scale_of_a_group_is_kept(tmp_path, kind):
    trits, scales = grouped_model(tmp_path / "model.gguf", kind)
    folder = convert(tmp_path / "model.gguf", tmp_path / "packed", packing="i2")
    file = PackedFile(folder / PACKED_NAME)
    group = BLOCKS[kind][0]
    assert file.header.spec["scale_group_size"] == group
    assert file.header.spec["activation_levels"] == 16383
    for module, expected in trits.items():
        data, packing, (n, k) = file.tensor(f"{module}.weight")
        assert np.array_equal(_core.unpack(data, packing, n, k, group=group), expected)
        data, dtype, shape = file.tensor(f"{module}.weight_scale")
        assert dtype == "f16"
        assert np.array_equal(data.view(np.float16).reshape(shape).T, scales[module])


def test_rows_of_scales_go_back_to_their_places(tmp_path):
    config = {**LLAMA, **SMALL}
    grouped_model(tmp_path / "plain.gguf", "Q2_0_128", config=config, arch="bitnet")
    grouped_model(tmp_path / "llama.gguf", "Q2_0_128", config=config, arch="llama", heads=(4, 2))
    plain = GgufFile(tmp_path / "plain.gguf").trits("blk.0.attn_q.weight")
    file = PackedFile(convert(tmp_path / "llama.gguf", tmp_path / "packed") / PACKED_NAME)
    data, _, shape = file.tensor("model.layers.0.self_attn.q_proj.weight_scale")
    assert np.array_equal(data.view(np.float16).reshape(shape).T, plain.scales)


@pytest.mark.parametrize("kind", ["IQ1_BN", "IQ2_BN"])
def test_every_trit_and_scale_of_a_row_is_kept(tmp_path, kind):
    config = {**LLAMA, **SMALL}
    stored, trits = make_tensors(config)
    dtype = {"IQ1_BN": np.float16, "IQ2_BN": np.float32}[kind]
    rng = np.random.default_rng(0)
    scales = {module: rng.uniform(0.5, 2, len(t)).astype(dtype) for module, t in trits.items()}
    tensors = model_tensors(stored, trits, kind, heads=(4, 2))
    for module in trits:
        rows, own = trits[module], scales[module]
        if module.endswith(("q_proj", "k_proj")):
            heads = 2 if module.endswith("k_proj") else 4
            rows, own = permuted(rows, heads), permuted(own, heads)
        data = encode_rows(kind, rows, own)
        tensors[gguf_name(f"{module}.weight")] = (TYPE_NUMBERS[kind], rows.shape, data)
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(tensors, config_keys("llama", config)))
    folder = convert(path, tmp_path / "packed", packing="t3")
    file = PackedFile(folder / PACKED_NAME)
    spec = file.header.spec
    assert (spec["scale_group_size"], spec["scale_group_count"]) == (None, 1)
    assert spec["activation_levels"] == 16383
    for module, expected in trits.items():
        data, packing, (n, k) = file.tensor(f"{module}.weight")
        assert np.array_equal(_core.unpack(data, packing, n, k, group=k), expected)
        data, stored_dtype, shape = file.tensor(f"{module}.weight_scale")
        assert stored_dtype == np.dtype(dtype).str.replace("<f2", "f16").replace("<f4", "f32")
        assert np.array_equal(data.view(dtype).reshape(shape), scales[module][None])
    logits = Engine.load(folder, num_threads=1, head="int8").logits(IDS)
    assert np.array_equal(Engine.load(path, num_threads=1, head="int8").logits(IDS), logits)


@pytest.mark.parametrize("kind", ["Q1_0", "Q2_0_128"])
def test_a_file_with_scales_of_groups_runs_as_what_is_made_of_it(tmp_path, kind):
    path = tmp_path / "model.gguf"
    grouped_model(path, kind, embedding=kind)
    engine = Engine.load(path, num_threads=1)
    packed = convert(path, tmp_path / "packed")
    assert np.array_equal(engine.logits(IDS), Engine.load(packed, num_threads=1).logits(IDS))
    embedding = GgufFile(path).trits("token_embd.weight")
    values = embedding.trits * embedding.scales.repeat(embedding.group, axis=1)
    stored = PackedFile(packed / PACKED_NAME).tensor("model.embed_tokens.weight")[0]
    assert np.array_equal(stored.view(np.float32), values.ravel())


@pytest.mark.parametrize("kind", ["Q1_0", "Q2_0_64", "Q2_0_128"])
def test_bonsai_has_the_same_bits_as_gguf_and_as_floats(tmp_path, kind):
    config = {key: value for key, value in QWEN3.items() if key != "quantization_config"} | SMALL
    trits, scales = grouped_model(tmp_path / "model.gguf", kind, config=config, arch="qwen3")
    stored, _ = make_tensors(config)
    floats = {name: values for name, values in stored.items() if not name.endswith("_scale")}
    for module, t in trits.items():
        floats[f"{module}.weight"] = t * scales[module].repeat(BLOCKS[kind][0], axis=1)
    folder = write_checkpoint(tmp_path / "hf", config, floats)
    logits = Engine.load(folder, num_threads=1).logits(IDS)
    assert np.array_equal(Engine.load(tmp_path / "model.gguf", num_threads=1).logits(IDS), logits)


def test_groups_of_two_sizes_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    stored, trits = make_tensors(CONFIG)
    tensors = model_tensors(stored, trits, "TQ2_0")
    rng = np.random.default_rng(0)
    ones, shape = np.ones((256, 256), np.int8), (256, 256)
    for part, kind in (("attn_q", "TQ2_0"), ("attn_output", "Q1_0"), ("ffn_down", "IQ2_BN")):
        if kind == "IQ2_BN":
            data = encode_rows(kind, ones, rng.uniform(0.5, 2, 256))
        else:
            data = encode_blocks(kind, ones, rng.uniform(0.5, 2, (256, 256 // BLOCKS[kind][0])))
        tensors[f"blk.0.{part}.weight"] = (TYPE_NUMBERS[kind], shape, data)
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet", CONFIG)))
    message = r"groups of one size, got 256 columns in .*128 columns in .*a row in blk\.0\.ffn_down"
    with pytest.raises(CheckpointError, match=message):
        Engine.load(path)


def test_interleaved_rows_are_refused_with_the_type_to_take(tmp_path):
    path = tmp_path / "model.gguf"
    stored, trits = make_tensors(CONFIG)
    tensors = model_tensors(stored, trits, "IQ2_BN")
    for name, (number, shape, data) in tensors.items():
        if number == TYPE_NUMBERS["IQ2_BN"]:
            tensors[name] = (335, shape, data)
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet", CONFIG)))
    message = r"got IQ2_BN_R4 .*: ik_llama\.cpp runs this model, or take it as IQ2_BN"
    with pytest.raises(CheckpointError, match=message):
        Engine.load(path)
