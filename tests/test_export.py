"""``export_gguf``: what stands in the file is the model, read by our own strict reader."""

import json

import numpy as np
import pytest
from checkpoints import LLAMA, TINY, make_tensors, write_checkpoint
from gguf_models import same_tensors
from tokenizer_cases import texts
from tokenizers import AddedToken, Tokenizer as Backend, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from bitinfer import default_model, export_gguf
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import ExportError
from bitinfer.families.gguf_names import hugging_face_name
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.tokenizer import Tokenizer

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 270,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BITNET, PLAIN = {**TINY, **SIZES}, {**LLAMA, **SIZES}
QWEN3 = {**PLAIN, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
YARN_ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def checkpoint(folder, config, **options):
    """A raw checkpoint with the embedded model's tokenizer: folder, tensors, trits by module."""
    tensors, ternary = make_tensors(config, **options)
    if config["model_type"] == "qwen3":
        for i in range(config["num_hidden_layers"]):
            for name in ("q_norm", "k_norm"):
                gain = np.linspace(0.5, 1.5, config["head_dim"], dtype=np.float32)
                tensors[f"model.layers.{i}.self_attn.{name}.weight"] = gain
    write_checkpoint(folder, config, tensors)
    write_tokenizer(folder)
    return folder, tensors, ternary


def write_tokenizer(folder, **settings):
    """A token for each byte and a merged one, behind a few control tokens."""
    names = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|eot_id|>")
    tokens = [*names, *sorted(ByteLevel.alphabet()), "th"]
    backend = Backend(BPE({token: i for i, token in enumerate(tokens)}, [("t", "h")]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def exported(tmp_path, config, kind, **options):
    folder, tensors, ternary = checkpoint(tmp_path / "hf", config, **options)
    done = export_gguf(folder, tmp_path / "x.gguf", kind=kind)
    return GgufFile(done.path), done, tensors, ternary


def layout(kind):
    return "128-block" if kind == "i2_s" else None


def permuted(rows, heads):
    """Row 2·i + j of a head is row j·d/2 + i of Hugging Face's."""
    d = len(rows) // heads
    order = [h * d + j * d // 2 + i for h in range(heads) for i in range(d // 2) for j in range(2)]
    return rows[order]


@pytest.mark.parametrize("kind", ["tq1_0", "tq2_0", "i2_s"])
@pytest.mark.parametrize("config", [BITNET, PLAIN, QWEN3], ids=["bitnet", "llama", "qwen3"])
def test_trits_scales_and_floats_are_those_of_the_checkpoint(tmp_path, config, kind):
    file, done, tensors, ternary = exported(tmp_path, config, kind)
    divides = "linear_class" not in config["quantization_config"]
    for name in file.tensors:
        here = hugging_face_name(name)
        module = here.removesuffix(".weight")
        if module not in ternary:
            assert (file.floats(name) == tensors[here]).all()
            continue
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        trits = ternary[module]
        if done.architecture == "llama" and (key := heads.get(module.rpartition(".")[2])):
            trits = permuted(trits, config[key])
        stored = tensors[f"{module}.weight_scale"]
        (scale,) = np.float32(1) / stored if divides else stored
        got = file.trits(name, layout(kind))
        assert np.array_equal(got.trits, trits), name
        assert got.scales.tolist() == [scale if kind == "i2_s" else np.float16(scale)]
    assert {hugging_face_name(name) for name in file.tensors} == {
        name for name in tensors if not name.endswith("_scale")
    }


@pytest.mark.parametrize(
    ("config", "kind", "architecture", "programs"),
    [
        (BITNET, "i2_s", "bitnet-b1.58", "bitnet.cpp before July 2026, ik_llama.cpp"),
        (BITNET, "tq2_0", "bitnet-b1.58", "bitnet.cpp before July 2026"),
        ({**BITNET, "hidden_act": "silu"}, "i2_s", "bitnet", "bitnet.cpp"),
        ({**BITNET, "hidden_act": "silu"}, "tq1_0", "bitnet", "llama.cpp"),
        (PLAIN, "tq2_0", "llama", "llama.cpp"),
        (QWEN3, "tq2_0", "qwen3", "llama.cpp"),
        (QWEN3, "i2_s", "qwen3", "bitnet.cpp since July 2026"),
    ],
)
def test_metadata_is_that_of_the_config(tmp_path, config, kind, architecture, programs):
    file, done, *_ = exported(tmp_path, config, kind)
    assert done.architecture == file.metadata["general.architecture"] == architecture
    assert done.programs == programs
    keys = {
        "vocab_size": 270,
        "embedding_length": 256,
        "feed_forward_length": 512,
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "rope.dimension_count": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": np.float32(config["rms_norm_eps"]),
        "rope.freq_base": config["rope_theta"],
    }
    for key, value in keys.items():
        assert file.metadata[f"{architecture}.{key}"] == value, key
    relu2 = file.metadata.get(f"{architecture}.hidden_activation")
    assert relu2 == ("relu2" if config["hidden_act"] == "relu2" else None)
    types = {"tq1_0": 36, "tq2_0": 37, "i2_s": 40}
    assert file.metadata["general.file_type"] == types[kind]


def test_rope_scaling_is_kept(tmp_path):
    file, *_ = exported(tmp_path, {**PLAIN, "rope_scaling": LLAMA3_ROPE}, "tq2_0")
    factors = file.floats("rope_freqs.weight")
    assert factors.shape == (32,)
    assert (factors[0], factors[-1]) == (1, 8)  # short waves as they were, long ones 8 times longer
    linear = {"rope_type": "linear", "factor": 2.0}
    file, *_ = exported(tmp_path / "two", {**BITNET, "rope_scaling": linear}, "tq2_0")
    assert file.metadata["bitnet-b1.58.rope.scaling.type"] == "linear"
    assert file.metadata["bitnet-b1.58.rope.scaling.factor"] == 2


def biased(folder):
    """A raw checkpoint whose attention has biases."""
    config = {**PLAIN, "attention_bias": True}
    tensors, _ = make_tensors(config)
    biases = {"q": 256, "k": 128, "v": 128, "o": 256}
    for i in range(config["num_hidden_layers"]):
        for name, size in biases.items():
            tensors[f"model.layers.{i}.self_attn.{name}_proj.bias"] = np.arange(size, dtype="f4")
    write_checkpoint(folder, config, tensors)
    write_tokenizer(folder)
    return folder


def test_biases_of_q_and_k_are_permuted_with_their_rows(tmp_path):
    folder = biased(tmp_path / "hf")
    file = GgufFile(export_gguf(folder, tmp_path / "x.gguf", kind="i2_s").path)
    assert (file.floats("blk.1.attn_q.bias") == permuted(np.arange(256), 4)).all()
    assert (file.floats("blk.1.attn_k.bias") == permuted(np.arange(128), 2)).all()
    assert (file.floats("blk.1.attn_v.bias") == np.arange(128)).all()
    assert (file.floats("blk.1.attn_output.bias") == np.arange(256)).all()


@pytest.mark.parametrize("context", [None, 64, 8192])
def test_biases_and_scaled_rope_come_back(tmp_path, context):
    if context is None:
        folder = biased(tmp_path / "hf")
    else:
        rope = {**LLAMA3_ROPE, "factor": 10.0, "original_max_position_embeddings": context}
        config = {**PLAIN, "rope_scaling": rope, "rope_theta": 500000.0}
        folder, *_ = checkpoint(tmp_path / "hf", config)
    path = export_gguf(folder, tmp_path / "x.gguf", kind="i2_s").path
    packed = convert(path, tmp_path / "packed", i2s_layout="128")
    same_tensors(packed, convert(folder, tmp_path / "expected"))
    one, other = (Engine.load(f, num_threads=1, head="int8") for f in (packed, folder))
    ids = [5, 6, 7, 8, 9]
    assert np.array_equal(one.logits(ids), other.logits(ids))


def test_packed_folders_give_the_bytes_of_the_checkpoint(tmp_path):
    folder, *_ = checkpoint(tmp_path / "model", BITNET)
    raw = export_gguf(folder, tmp_path / "raw.gguf", kind="tq1_0").path.read_bytes()
    for packing in ("i2", "t3", "t5"):
        packed = convert(folder, tmp_path / packing, packing=packing)
        done = export_gguf(packed, tmp_path / "packed.gguf", kind="tq1_0", force=True)
        assert done.path.read_bytes() == raw, packing


def test_an_int8_head_is_noted(tmp_path):
    folder, tensors, _ = checkpoint(tmp_path / "hf", PLAIN)
    packed = convert(folder, tmp_path / "packed", head="int8")
    done = export_gguf(packed, tmp_path / "x.gguf", kind="i2_s")
    head = GgufFile(done.path).floats("output.weight")
    row_scales = np.abs(tensors["lm_head.weight"]).max(axis=1, keepdims=True) / 127
    assert (np.abs(head - tensors["lm_head.weight"]) <= row_scales * 0.51 + 2e-3).all()
    assert any("--head source" in note for note in done.notes)
    exact = convert(folder, tmp_path / "packed", head="source")
    assert not export_gguf(exact, tmp_path / "y.gguf", kind="i2_s").notes


def test_rounded_scales_are_noted_and_impossible_ones_refused(tmp_path):
    folder, tensors, _ = checkpoint(tmp_path / "hf", BITNET)
    done = export_gguf(folder, tmp_path / "x.gguf", kind="tq2_0")
    assert f"of {7 * BITNET['num_hidden_layers']} scales were rounded to fp16" in done.notes[0]
    tensors["model.layers.0.mlp.up_proj.weight_scale"][:] = 1e6
    write_checkpoint(folder, BITNET, tensors)
    with pytest.raises(
        ExportError, match=r"up_proj\.weight_scale: .* got 1000000\.0: i2_s keeps it"
    ):
        export_gguf(folder, tmp_path / "x.gguf", kind="tq2_0", force=True)
    export_gguf(folder, tmp_path / "y.gguf", kind="i2_s")


def test_matrices_of_other_widths_are_f16(tmp_path):
    file, done, _, ternary = exported(tmp_path, {**BITNET, "intermediate_size": 384}, "tq2_0")
    down = file.tensors["blk.0.ffn_down.weight"]
    assert (down.type.name, down.shape) == ("F16", (256, 384))
    trits = ternary["model.layers.0.mlp.down_proj"]
    values = file.floats("blk.0.ffn_down.weight")
    assert np.array_equal(np.sign(values), trits)
    assert len(np.unique(np.abs(values))) == 2  # 0 and the scale
    assert any("384 columns are no multiple of 256" in note for note in done.notes)


def test_the_tokenizer_of_the_file_gives_the_same_ids(tmp_path):
    done = export_gguf("tales-14m", tmp_path / "x.gguf", kind="tq2_0")
    metadata = GgufFile(done.path).metadata
    rebuilt = tokenizer_from_gguf(metadata, "x.gguf")
    ours = Tokenizer.load(default_model(), vocab_size=4096, bos_token_id=1, eos_token_ids=[2])
    assert (rebuilt.bos_token_id, rebuilt.eos_token_ids) == (1, (2,))
    for text in texts():
        rebuilt.backend.encode_special_tokens = True
        assert rebuilt.backend.encode(text).ids == ours.encode(text, add_special_tokens=True), text
    settings = json.loads((default_model() / "tokenizer_config.json").read_text())
    assert metadata["tokenizer.chat_template"] == settings["chat_template"]


@pytest.mark.parametrize("first", ["<|eot_id|>", "</s>"])
def test_the_end_of_a_turn_is_named_beside_the_end_of_a_text(tmp_path, first):
    folder, *_ = checkpoint(tmp_path / "hf", BITNET)
    write_tokenizer(folder, eos_token=first, chat_template="{{ messages }}<|eot_id|>")
    generation = {"eos_token_id": [2, 4]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    done = export_gguf(folder, tmp_path / "x.gguf", kind="i2_s")
    metadata = GgufFile(done.path).metadata
    ends = [metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot")]
    assert ends == ([5, 2] if first == "<|eot_id|>" else [2, 5])
    assert done.notes[-1] == "GGUF names two end tokens, and not <|assistant|>"


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        ({**BITNET, "tie_word_embeddings": False}, "tq2_0", "tie_word_embeddings: expected True"),
        (
            {**BITNET, "head_dim": 32},
            "tq2_0",
            r"head_dim: expected 64, .* bitnet-b1\.58 has it, got 32",
        ),
        ({**PLAIN, "hidden_act": "relu2"}, "i2_s", "hidden_act: expected silu, .* got relu2"),
        ({**BITNET, "rope_scaling": LLAMA3_ROPE}, "i2_s", "bitnet-b1.58 has no rope_type llama3"),
        ({**PLAIN, "rope_scaling": YARN_ROPE}, "tq2_0", "rope_type yarn is not exported to GGUF"),
        (
            {**BITNET, "hidden_size": 64, "head_dim": 16, "intermediate_size": 96},
            "tq1_0",
            "expected columns in multiples of 256 for TQ1_0, got 64 and 96",
        ),
    ],
)
def test_a_model_that_gguf_does_not_describe_is_refused(tmp_path, config, kind, message):
    folder, *_ = checkpoint(tmp_path / "hf", config)
    with pytest.raises(ExportError, match=message) as error:
        export_gguf(folder, tmp_path / "x.gguf", kind=kind)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.gguf").exists()


def test_norms_that_no_architecture_has_are_refused(tmp_path):
    folder, tensors, _ = checkpoint(tmp_path / "hf", QWEN3)
    for i in range(QWEN3["num_hidden_layers"]):
        tensors[f"model.layers.{i}.self_attn.attn_sub_norm.weight"] = np.ones(256, np.float32)
        tensors[f"model.layers.{i}.mlp.ffn_sub_norm.weight"] = np.ones(512, np.float32)
    write_checkpoint(folder, QWEN3, tensors)
    message = r"no architecture of GGUF .* has attn_sub_norm, ffn_sub_norm, qk_norm: such"
    with pytest.raises(ExportError, match=message):
        export_gguf(folder, tmp_path / "x.gguf", kind="tq2_0")


def test_a_file_is_replaced_only_by_force(tmp_path):
    target = tmp_path / "x.gguf"
    target.write_text("mine")
    with pytest.raises(ExportError, match=r"x\.gguf: is there already: .*--force"):
        export_gguf("tales-14m", target, kind="i2_s")
    assert target.read_text() == "mine"
    export_gguf("tales-14m", target, kind="i2_s", force=True)
    assert GgufFile(target).metadata["general.name"] == "tales-14m"
    with pytest.raises(ExportError, match="expected the name of a file, got a folder"):
        export_gguf("tales-14m", tmp_path, kind="i2_s", force=True)
    with pytest.raises(ExportError, match="gone: expected a folder to write to"):
        export_gguf("tales-14m", tmp_path / "gone" / "x.gguf", kind="i2_s")
    with pytest.raises(ValueError, match="kind: expected tq1_0, tq2_0, i2_s, got 'q4_0'"):
        export_gguf("tales-14m", tmp_path / "y.gguf", kind="q4_0")


@pytest.mark.parametrize("kind", ["tq1_0", "i2_s"])
def test_an_exported_model_runs_with_the_same_bits_and_exports_to_the_same_bytes(tmp_path, kind):
    first = export_gguf("tales-14m", tmp_path / "tales-14m.gguf", kind=kind).path
    ids = [1, 400, 500, 600, 700]
    original = Engine.load(default_model(), head="source").logits(ids)
    assert np.array_equal(Engine.load(first, head="source").logits(ids), original)
    second = export_gguf(first, tmp_path / "again.gguf", kind=kind)
    expected, got = GgufFile(first), GgufFile(second.path)
    for name, tensor in expected.tensors.items():
        assert got.tensors[name].shape == tensor.shape
        assert (got.view(name) == expected.view(name)).all(), name
    changed = [
        key
        for key, value in expected.metadata.items()
        if not np.array_equal(np.array(value), np.array(got.metadata[key]))
    ]
    assert changed == ["general.name"]


def test_progress_counts_every_byte_of_the_tensors(tmp_path):
    calls = []
    export_gguf(
        "tales-14m", tmp_path / "x.gguf", kind="i2_s", progress=lambda *done: calls.append(done)
    )
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert (
        calls[-1][0]
        == calls[-1][1]
        == sum(
            tensor.end - tensor.begin for tensor in GgufFile(tmp_path / "x.gguf").tensors.values()
        )
    )
