"""Train a little, save, load elsewhere: bitinfer and transformers compute what torch trained.

The models learn a language with two grammars: the first token of a text says by which of two
permutations each token follows from the one before, but for one in twenty. So they are sure of what
they say, as a trained model is, and have to look back for it.
"""

import copy
import re
import resource

import numpy as np
import pytest
import torch
from comparisons import assert_like_fp32, distances
from conftest import comparable_engine
from safetensors.torch import load_file, save_file
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers_oracle import Oracle

from bitinfer import default_model
from bitinfer.errors import CheckpointError, PackedFileError, TokenizerError
from bitinfer.model import Model
from bitinfer.train import BinaryLinear, BitLinear, load, save, ternarize

F32, F64 = torch.float32, torch.float64
VOCAB = 50
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": VOCAB,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MODELS = {  # class, config class, more of the config, options of ternarize, class on disk
    "bitnet": (BitNetForCausalLM, BitNetConfig, {"tie_word_embeddings": True}, {}, "BitNet"),
    "llama": (LlamaForCausalLM, LlamaConfig, {}, {"sub_norm": False}, "Llama"),
    "llama, SubLN": (LlamaForCausalLM, LlamaConfig, {}, {}, "BitNet"),
    "qwen3, SubLN": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 32}, {}, "Qwen3"),
    **{
        f"binary, {groups} groups": (
            BitNetForCausalLM,
            BitNetConfig,
            {"tie_word_embeddings": groups == 2},
            {"linear": "binary", "num_groups": groups},
            "BitNet",
        )
        for groups in (1, 2, 4)
    },
}
KNOWN = ["bitnet", "llama", "llama, SubLN"]  # what transformers has classes for


def texts(count, length, seed):
    """Token ids (count, length) of the language."""
    random = np.random.default_rng(seed)
    followers = np.stack([np.random.default_rng(i).permutation(VOCAB) for i in range(2)])
    ids = random.integers(VOCAB, size=(count, length))
    ids[:, 0] %= 2
    odd = random.random((count, length)) < 0.05
    for i in range(2, length):
        ids[:, i] = np.where(odd[:, i], ids[:, i], followers[ids[:, 0], ids[:, i - 1]])
    return torch.from_numpy(ids)


def new_model(name):
    kind, config, options, ternary, _ = MODELS[name]
    torch.manual_seed(0)
    model = kind._from_config(config(**SHAPE, **options), attn_implementation="eager")
    return ternarize(model, **ternary)


def forms_of(name):
    return ["master"] if "binary" in name else ["packed", "master"]


@pytest.fixture(scope="module")
def trained():
    """Name to model, each trained when it is asked for first."""
    models = {}

    def get(name):
        if name not in models:
            model = new_model(name)
            optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
            for step in range(100):
                ids = texts(16, 20, step)
                loss = model(ids, labels=ids).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            assert loss < 1
            models[name] = model.eval()
        return models[name]

    return get


@pytest.fixture(scope="module")
def measured(trained):
    """Name to texts that the model has not seen, and what torch in fp64 and fp32 makes of them."""
    found = {}

    def get(name):
        if name not in found:
            ids = texts(24, 48, 12345).tolist()
            models = [Oracle(None, d, copy.deepcopy(trained(name))) for d in (F64, F32)]
            found[name] = (ids, *([model.logits(row) for row in ids] for model in models))
        return found[name]

    return get


def assert_same_model(logits, exact, fp32):
    """Logits as near to fp64 as torch in fp32, and the same likeliest tokens."""
    ours, theirs = (
        [distances(a, e) for a, e in zip(rows, exact, strict=True)] for rows in (logits, fp32)
    )
    assert_like_fp32(ours, theirs)
    best, a, b = (np.concatenate(rows).argmax(1) for rows in (logits, exact, fp32))
    assert len(best) >= 1000
    assert np.mean(best == a) >= 0.995
    assert np.mean(best == b) >= 0.995


@pytest.mark.parametrize("name", MODELS)
def test_bitinfer_computes_what_torch_has_trained(name, trained, measured, tmp_path):
    ids, exact, fp32 = measured(name)
    logits = []
    for form in forms_of(name):
        engine = comparable_engine(save(trained(name), tmp_path / form, form))
        logits.append([engine.logits(row) for row in ids])
        assert_same_model(logits[-1], exact, fp32)
    for one, other in zip(logits[0], logits[-1], strict=True):
        assert np.array_equal(one, other)  # the forms are one model, bit for bit


@pytest.mark.parametrize("form", ["packed", "master"])
@pytest.mark.parametrize("name", KNOWN)
def test_transformers_computes_what_torch_has_trained(name, form, trained, measured, tmp_path):
    ids, exact, fp32 = measured(name)
    oracle = Oracle(save(trained(name), tmp_path / "model", form), F32)
    assert type(oracle.model).__name__ == f"{MODELS[name][-1]}ForCausalLM"
    assert_same_model([oracle.logits(row) for row in ids], exact, fp32)


@pytest.mark.parametrize("name", MODELS)
def test_masters_are_loaded_to_train_on(name, tmp_path):
    model, ids = new_model(name), texts(2, 20, 0)
    again = load(save(model, tmp_path / "model", "master"))
    assert again.num_parameters() == model.num_parameters()
    again.config._attn_implementation = "eager"
    assert torch.equal(again(ids).logits, model(ids).logits)
    again(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_projections_are_two_bits_and_floats_have_the_dtype_asked_for(tmp_path):
    model = new_model("qwen3, SubLN")
    folder = save(model, tmp_path / "model", dtype=torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        kind = "scale" if name.endswith("_scale") else "packed" if "_proj" in name else "float"
        assert tensor.dtype == {"scale": F32, "packed": torch.uint8}.get(kind, torch.bfloat16)
    packed = tensors["model.layers.1.mlp.down_proj.weight"]
    codes = model.model.layers[1].mlp.down_proj.codes()[0]
    for quarter, rows in enumerate(codes.chunk(4)):
        assert torch.equal((packed >> 2 * quarter & 3).float() - 1, rows)
    assert "model.layers.1.self_attn.attn_sub_norm.weight" in tensors
    assert "model.layers.1.mlp.ffn_sub_norm.weight" in tensors


def test_the_tokenizer_comes_along(tmp_path):
    model = ternarize(LlamaForCausalLM(LlamaConfig(**{**SHAPE, "vocab_size": 4096})))
    folder = save(model, tmp_path / "model", tokenizer=default_model())
    with Model.load(folder) as ours, Model.load(default_model()) as theirs:
        assert ours.tokenizer.encode("Once upon") == theirs.tokenizer.encode("Once upon")
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # all by the umask
    with pytest.raises(TokenizerError, match=r"expected tokenizer\.json or .* got neither$"):
        save(model, tmp_path / "other", tokenizer=tmp_path)
    assert not (tmp_path / "other").exists()


def test_a_folder_is_replaced_only_if_asked_and_only_by_a_whole_one(tmp_path):
    model, folder = new_model("bitnet"), tmp_path / "model"
    save(model, folder)
    before = (folder / "config.json").read_text()
    with pytest.raises(PackedFileError, match=r"expected a new .* got one that holds"):
        save(model, folder, "master")
    save(model, folder, "master", replace=True)
    assert (folder / "config.json").read_text() != before
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PackedFileError, match=r"got one that holds notes\.txt"):
        save(model, folder, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    model, before = new_model("bitnet"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(
            PackedFileError, match=r"model: cannot be written: [^\n]*File too large"
        ):
            save(model, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear": "int4"}, "linear: expected bitnet or binary, got 'int4'"),
        ({"num_groups": 2}, "num_groups: expected 1 of ternary weights, got 2"),
        (
            {"linear": "binary", "num_groups": 5},
            "num_groups: expected a divisor of 64 (0.self_attn.q_proj), got 5",
        ),
        (
            {"linear": "binary", "threshold": 0.7},
            "threshold: expected none of binary weights, got 0.7",
        ),
        ({"sub_norm": False}, "sub_norm: expected true, a bitnet model of bitnet has its norms"),
    ],
)
def test_what_cannot_be_made_ternary_so_is_refused_and_left_alone(options, message):
    model = BitNetForCausalLM(BitNetConfig(**SHAPE))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ternarize(model, **options)
    assert not any(isinstance(module, BitLinear | BinaryLinear) for module in model.modules())


def test_models_that_are_not_known_in_float32_and_dense_are_refused():
    config = GemmaConfig(**SHAPE, head_dim=16)
    with pytest.raises(ValueError, match=r"^model: expected one of bitnet, llama, .* got gemma$"):
        ternarize(GemmaForCausalLM(config))
    with pytest.raises(ValueError, match=r"expected float32.* dtype=torch\.float32$"):
        ternarize(BitNetForCausalLM(BitNetConfig(**SHAPE)).bfloat16())
    with pytest.raises(ValueError, match=r"^model: expected full-precision projections, got "):
        ternarize(new_model("bitnet"))
    with pytest.raises(ValueError, match=r"without mlp_bias"):
        ternarize(LlamaForCausalLM(LlamaConfig(**SHAPE, mlp_bias=True)))


def test_what_no_folder_can_hold_is_refused(tmp_path):
    dense = BitNetForCausalLM(BitNetConfig(**SHAPE))
    diverged = new_model("bitnet")
    diverged.model.layers[0].mlp.up_proj.weight.data[3, 4] = float("nan")
    sparse = ternarize(BitNetForCausalLM(BitNetConfig(**SHAPE)), threshold=0.7)
    biased = ternarize(LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True)))
    for model, form, message in (
        (biased, "packed", "form: expected master for projections with biases, which transformers"),
        (dense, "packed", "model: expected one of ternary projections: call ternarize first"),
        (sparse, "master", "form: expected packed for a threshold of 0.7, which masters do not"),
        (sparse, "gguf", "form: expected packed or master, got 'gguf'"),
        (new_model("binary, 2 groups"), "packed", "form: expected master for binary weights, got"),
        (diverged, "packed", "model.layers.0.mlp.up_proj.weight: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}[^\n]*$"):
            save(model, tmp_path / "model", form)
    assert not list(tmp_path.iterdir())


def test_what_is_no_folder_of_masters_is_refused(tmp_path):
    save(new_model("bitnet"), tmp_path / "packed")
    with pytest.raises(CheckpointError, match=r"expected a model saved as masters, got .*offline"):
        load(tmp_path / "packed")
    folder = save(new_model("bitnet"), tmp_path / "master", "master")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"extra: expected the tensors that config"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"cannot be loaded: [^\n]*$"):
        load(folder)
