"""GGUF files as models: the same weights as a Hugging Face checkpoint give the same bits."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from checkpoints import DENSE, LLAMA, TINY, make_tensors, write_checkpoint
from gguf_files import STRING, TYPE_NUMBERS, gguf_bytes, key
from gguf_models import (
    U32,
    WIDE,
    config_keys,
    embedded_model,
    embedded_tokenizer,
    floats,
    model_tensors,
    same_tensors,
    tokenizer_keys,
)

import bitinfer
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import BitinferError, CheckpointError, TokenizerError
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.model import Model

BITNET = {**TINY, **WIDE}
UNTIED = {**BITNET, "tie_word_embeddings": False}
PERMUTED = {**LLAMA, **WIDE, "quantization_config": TINY["quantization_config"]}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu"}
NO_TOKENIZER = {"bos_token_id": None, "eos_token_id": None}
IDS = [5, 6, 7, 8, 9]


def both(folder, config, kind, arch, *, embedding="F32", heads=None, keys=()):
    """(GGUF file, Hugging Face folder) of the same random model; scales fit into fp16."""
    config = {**config, **NO_TOKENIZER}
    stored, trits = make_tensors(config)
    for name in stored:
        if name.endswith("_scale"):
            stored[name] = stored[name].astype(np.float16).astype(np.float32)
        if embedding == "F16" and name.startswith(("model.embed", "lm_head")):
            stored[name] = stored[name].astype(np.float16)
    path = folder / "model.gguf"
    tensors = model_tensors(stored, trits, kind, embedding=embedding, heads=heads)
    path.write_bytes(gguf_bytes(tensors, [*config_keys(arch, config), *keys]))
    return path, write_checkpoint(folder / "hf", config, stored)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [("I2_S 128-block", "128"), ("I2_S 64-block", "64"), ("I2_S 4-row", "4row")]
    + [(kind, None) for kind in ("TQ1_0", "TQ2_0", "Q2_0", "IQ1_BN", "IQ2_BN")],
)
def test_every_ternary_type_gives_the_packed_tensors_of_the_checkpoint(tmp_path, kind, layout):
    path, folder = both(tmp_path, {**BITNET, "num_hidden_layers": 1}, kind, "bitnet-b1.58")
    packed = convert(path, tmp_path / "a", packing="t5", i2s_layout=layout)
    same_tensors(packed, convert(folder, tmp_path / "b", packing="t5"))


@pytest.mark.parametrize(
    ("arch", "config", "options"),
    [
        ("llama", PERMUTED, {"heads": (4, 2)}),
        ("bitnet-25", UNTIED, {"embedding": "F16"}),
        ("bitnet-b1.58", BITNET, {"embedding": "F16"}),
        ("bitnet", {**BITNET, "hidden_act": "silu"}, {}),
    ],
)
@pytest.mark.parametrize("head", ["int8", "source"])
def test_each_architecture_gives_the_packed_tensors_of_the_checkpoint(
    tmp_path, arch, config, options, head
):
    path, folder = both(tmp_path, config, "TQ2_0", arch, **options)
    packed = convert(path, tmp_path / "a", head=head)
    same_tensors(packed, convert(folder, tmp_path / "b", head=head))
    one, other = (Engine.load(p, head=head, num_threads=1) for p in (path, folder))
    assert np.array_equal(one.logits(IDS), other.logits(IDS))


def test_an_embedding_model_with_norms_inside_its_projections(tmp_path):
    config = {**BITNET, **QWEN3, "num_hidden_layers": 1, "vocab_size": 4096}
    stored, trits = make_tensors(config)
    rng = np.random.default_rng(1)
    norms = {f"{module}.norm": matrix.shape[1] for module, matrix in trits.items()}
    norms |= {f"model.layers.0.self_attn.{x}_norm": config["head_dim"] for x in "qk"}
    for name, size in norms.items():
        stored[f"{name}.weight"] = rng.uniform(0.5, 1.5, size).astype(np.float32)
    path = tmp_path / "model.gguf"
    tensors = model_tensors(stored, trits, "I2_S")
    keys = config_keys("qwen3", config, pooling_type=(U32, 1))
    keys += tokenizer_keys(embedded_tokenizer())
    path.write_bytes(gguf_bytes(tensors, keys))
    folder = write_checkpoint(tmp_path / "hf", config, stored)
    packed = convert(path, tmp_path / "a")
    same_tensors(packed, convert(folder, tmp_path / "b"))
    (note,) = PackedFile(packed / PACKED_NAME).header.source["notes"]
    assert note == "I2_S byte order: 128-block, in which embedding models are written"
    with Model.load(path, num_threads=1) as raw, Model.load(packed, num_threads=1) as model:
        vectors = model.embed(["Once upon a time", "a dog"])
        assert np.array_equal(raw.embed(["Once upon a time", "a dog"]), vectors)
        assert (model.pooling.mode, model.pooling.trained, raw.pooling) == (
            "mean",
            True,
            model.pooling,
        )


def test_scales_in_tensors_of_their_own_multiply(tmp_path):
    path = tmp_path / "model.gguf"
    stored, trits = make_tensors(BITNET)
    for name in stored:
        if name.endswith("o_proj.weight_scale"):
            stored[name] = np.array([0.5], np.float32)
    tensors = model_tensors(stored, trits, "TQ2_0")
    for layer in range(BITNET["num_hidden_layers"]):
        tensors[f"blk.{layer}.attn_output.scale"] = floats(np.array([3.0]))
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet-b1.58", BITNET)))
    file = PackedFile(convert(path, tmp_path / "packed") / PACKED_NAME)
    scale = file.tensor("model.layers.1.self_attn.o_proj.weight_scale")[0].view(np.float32)
    assert scale == [1.5]


def test_trilm_by_its_name_runs_as_its_floats_do(tmp_path):
    """In 15 bits; without the name the same file is a BitNet, in int8."""
    named = [key("general.name", STRING, "TriLM 3.9B Unpacked")]
    heads = (LLAMA["num_attention_heads"], LLAMA["num_key_value_heads"])
    trilm, folder = both(tmp_path, PERMUTED, "TQ2_0", "llama", heads=heads, keys=named)
    stored, trits = make_tensors({**PERMUTED, **NO_TOKENIZER})
    values = {name: data for name, data in stored.items() if not name.endswith("_scale")}
    for module, t in trits.items():
        scale = stored[f"{module}.weight_scale"].astype(np.float16).astype(np.float32)
        values[f"{module}.weight"] = t * scale
    dense = write_checkpoint(tmp_path / "dense", {**DENSE, **WIDE, **NO_TOKENIZER}, values)
    engine, floats_of_it, bitnet = (
        Engine.load(path, num_threads=1) for path in (trilm, dense, folder)
    )
    assert any(note.startswith("TriLM by its name") for note in engine.notes)
    assert np.array_equal(engine.logits(IDS), floats_of_it.logits(IDS))
    assert not np.array_equal(engine.logits(IDS), bitnet.logits(IDS))


@pytest.mark.parametrize(("kind", "size"), [("Q8_0", 34), ("Q6_K", 210)])
def test_a_quantized_embedding_is_used_with_its_exact_values(tmp_path, kind, size):
    path, folder = both(tmp_path, BITNET, "TQ2_0", "bitnet-b1.58")
    shape = (BITNET["vocab_size"], BITNET["hidden_size"])
    weights = {"Q8_0": 32, "Q6_K": 256}[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (shape[0] * shape[1] // weights, size))
    at = {"Q8_0": 0, "Q6_K": 208}[kind]
    blocks[:, at : at + 2] = np.array([0x00, 0x18])  # fp16 of about 0.002
    stored, trits = make_tensors({**BITNET, **NO_TOKENIZER})
    for name in stored:
        if name.endswith("_scale"):
            stored[name] = stored[name].astype(np.float16).astype(np.float32)
    tensors = model_tensors(stored, trits, "TQ2_0")
    tensors["token_embd.weight"] = (TYPE_NUMBERS[kind], shape, blocks.astype(np.uint8).tobytes())
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet-b1.58", BITNET)))
    stored["model.embed_tokens.weight"] = GgufFile(path).floats("token_embd.weight")
    write_checkpoint(folder, {**BITNET, **NO_TOKENIZER}, stored)
    same_tensors(convert(path, tmp_path / "a"), convert(folder, tmp_path / "b"))


def test_matrices_in_f16_beside_ternary_ones_are_ternary(tmp_path):
    """Their rows are no whole blocks."""
    config = {**BITNET, "intermediate_size": 384, "num_hidden_layers": 1}
    path, folder = both(tmp_path, config, "TQ2_0", "bitnet-b1.58")
    assert GgufFile(path).tensors["blk.0.ffn_down.weight"].type.name == "F16"
    same_tensors(convert(path, tmp_path / "a"), convert(folder, tmp_path / "b"))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_other_floats_beside_ternary_matrices_are_refused(tmp_path, value):
    config = {**BITNET, **NO_TOKENIZER, "intermediate_size": 384, "num_hidden_layers": 1}
    stored, trits = make_tensors(config)
    tensors = model_tensors(stored, trits, "TQ2_0")
    name = "blk.0.ffn_down.weight"
    values = np.zeros(tensors[name][1], np.float32)
    values[0, 0], values[1, 1] = 1.0, value
    tensors[name] = floats(values, "F16")
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet-b1.58", config)))
    with pytest.raises(CheckpointError, match=r"ffn_down\.weight: expected 0 and one magnitude"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The embedded model, which was trained, as a file


@pytest.fixture(scope="module")
def embedded_file(tmp_path_factory):
    return embedded_model(tmp_path_factory.mktemp("gguf") / "tales.gguf", "TQ2_0")


def test_a_file_chats_as_the_model_that_it_holds(embedded_file):
    messages = [{"role": "user", "content": "Tell me a <s> story"}]
    options = {"temperature": 0, "max_tokens": 12}
    with (
        Model.load(embedded_file, head="source", num_threads=1) as model,
        Model.load(bitinfer.default_model(), head="source", num_threads=1) as embedded,
    ):
        assert model.encode_chat(messages) == embedded.encode_chat(messages)
        assert model.chat(messages, **options).text == embedded.chat(messages, **options).text
        assert model.tokenizer.eos_token_ids == embedded.tokenizer.eos_token_ids
        assert model.engine.spec["eos_token_ids"] == [2]


def test_the_folder_made_of_a_file_has_all_that_the_file_has(embedded_file, tmp_path):
    folder = convert(embedded_file, tmp_path / "packed")
    names = {path.name for path in folder.iterdir()}
    text = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names == {PACKED_NAME, *text}
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bitnet"
    messages = [{"role": "user", "content": "Hi"}]
    with Model.load(embedded_file, num_threads=1) as raw, Model.load(folder) as packed:
        assert packed.encode_chat(messages) == raw.encode_chat(messages)
        assert packed.tokenizer.eos_token_ids == raw.tokenizer.eos_token_ids
        assert np.array_equal(raw.logits(IDS), packed.logits(IDS))


def test_a_folder_that_holds_one_file_is_that_model(embedded_file, tmp_path):
    shutil.copy(embedded_file, tmp_path / "any-name.gguf")
    with Model.load(tmp_path, num_threads=1) as model:
        assert model.has_chat_template
        assert model.tokenizer.encode("a")


def test_of_several_files_the_name_of_a_ternary_type_decides(embedded_file, tmp_path):
    (tmp_path / "tales-f16.gguf").write_bytes(b"not read")
    shutil.copy(embedded_file, tmp_path / "tales-TQ2_0.gguf")
    Engine.load(tmp_path, num_threads=1)
    (tmp_path / "tales-TQ2_0.gguf").rename(tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match=r"expected one GGUF file .*got b.gguf, tales-f16"):
        Engine.load(tmp_path)


# What is refused


@pytest.mark.parametrize("kind", ["Q4_1", "F16"])
def test_a_model_that_is_not_ternary_is_refused_with_a_program_that_runs_it(tmp_path, kind):
    path, _ = both(tmp_path, BITNET, "TQ2_0", "bitnet-b1.58")
    stored, trits = make_tensors(BITNET)
    tensors = model_tensors(stored, trits, "TQ2_0")
    shape = (BITNET["hidden_size"],) * 2
    size = {"Q4_1": shape[0] * shape[1] // 32 * 20, "F16": shape[0] * shape[1] * 2}[kind]
    tensors["blk.0.attn_q.weight"] = (TYPE_NUMBERS[kind], shape, bytes(size))
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet-b1.58", BITNET)))
    with pytest.raises(
        CheckpointError, match=rf"blk.0.attn_q.weight: .* got {kind} \(256, 256\).*llama.cpp runs"
    ):
        Engine.load(path)


def test_a_part_of_a_split_file_is_refused(tmp_path):
    path, _ = both(tmp_path, BITNET, "TQ2_0", "bitnet", keys=[key("split.count", U32, 2)])
    with pytest.raises(CheckpointError, match="one part of a split file"):
        Engine.load(path)


def test_a_file_without_a_tokenizer_runs_ids_and_says_what_it_lacks(tmp_path):
    path, _ = both(tmp_path, BITNET, "TQ2_0", "bitnet")
    with Model.load(path, num_threads=1) as model:
        assert model.logits(IDS).shape == (5, 50)
        with pytest.raises(TokenizerError, match="expected a tokenizer, got a file without one"):
            model.generate("Hi")


def test_a_damaged_vocabulary_is_one_line(tmp_path):
    keys = tokenizer_keys({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "a"]})
    path, _ = both(tmp_path, BITNET, "TQ2_0", "bitnet", keys=keys)
    with pytest.raises(BitinferError, match=r"tokenizer.ggml.tokens: .*model.gguf"):
        Model.load(path)


def test_missing_tensors_are_named_as_the_file_names_them(tmp_path):
    stored, trits = make_tensors(BITNET)
    tensors = model_tensors(stored, trits, "TQ2_0")
    del tensors["blk.0.attn_q.weight"], tensors["blk.1.ffn_sub_norm.weight"]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(tensors, config_keys("bitnet-b1.58", BITNET)))
    with pytest.raises(CheckpointError) as caught:
        Engine.load(path)
    names = "blk.1.ffn_sub_norm.weight, blk.0.attn_q.weight"
    assert f"are missing: {names}: the file is damaged" in str(caught.value)
