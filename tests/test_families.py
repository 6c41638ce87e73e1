import numpy as np
import pytest
from checkpoints import (
    GEMMA3,
    LLAMA,
    ONEBIT,
    QWEN3,
    TINY,
    make_tensors,
    projections,
    write_checkpoint,
)

from bitinfer.config import ModelConfig
from bitinfer.convert import open_checkpoint
from bitinfer.errors import CheckpointError, ConfigError, PackedFileError
from bitinfer.families import find_family, plan_model
from bitinfer.families.bitlinear import Dialect, effective_scale, read_dialect
from bitinfer.families.spec import check_spec, make_spec
from bitinfer.formats.safetensors import Checkpoint

O_PROJ = "model.layers.1.self_attn.o_proj"
MODULES = list(projections(TINY))


def dialect(**quantization):
    return read_dialect({"quant_method": "bitnet", **quantization}, MODULES, "config.json")


def plan(folder, config, tensors):
    write_checkpoint(folder, config, tensors)
    return plan_model(ModelConfig.from_dict(config), Checkpoint(folder))


def plan_error(folder, config, tensors):
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        plan(folder, config, tensors)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_linear_class_says_whether_the_scale_divides():
    assert dialect() == Dialect(online=False, divides=True)
    assert dialect(linear_class="bitlinear") == Dialect(online=False, divides=True)
    assert dialect(linear_class="autobitlinear") == Dialect(online=False, divides=False)
    online = dialect(linear_class="autobitlinear", quantization_mode="online")
    assert online == Dialect(online=True, divides=False)
    assert dialect(use_rms_norm=True).norm_eps == 1e-6
    assert dialect(use_rms_norm=True, rms_norm_eps=1e-5).norm_eps == 1e-5


def test_a_reciprocal_is_rounded_once_to_float32():
    stored = np.float32(1.3)
    expected = np.float32(1) / stored
    assert effective_scale(stored, Dialect(False, True), "x") == expected
    assert effective_scale(stored, Dialect(False, False), "x") == stored


@pytest.mark.parametrize("divides", [True, False])
@pytest.mark.parametrize("stored", [0.0, -0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_scales_nothing_is_refused(stored, divides):
    with pytest.raises(CheckpointError, match="x: expected a finite scale above 0, got"):
        effective_scale(np.float32(stored), Dialect(False, divides), "x")


def test_a_reciprocal_that_overflows_is_refused():
    with pytest.raises(CheckpointError, match="expected a finite scale above 0, got 1e-45"):
        effective_scale(np.float32(1e-45), Dialect(False, True), "x")


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"quant_method": "gptq"}, "quant_method: expected bitnet, got 'gptq'"),
        ({"linear_class": "other"}, "linear_class: expected bitlinear or autobitlinear"),
        ({"quantization_mode": "both"}, "quantization_mode: expected offline or online"),
        ({"use_rms_norm": 1}, "use_rms_norm: expected False or True, got 1"),
        ({"use_rms_norm": True, "rms_norm_eps": "x"}, "rms_norm_eps: expected a number between"),
        ({"surprise": 1}, "surprise: expected no such key for bitnet"),
        ({"modules_to_not_convert": ["model.layers.0"]}, "got model.layers.0.self_attn.q_proj"),
        ({"modules_to_not_convert": ["down_proj"]}, "mlp.down_proj left dense"),
        ({"modules_to_not_convert": ["(a+)+$"]}, "expected a plain module name, got (a+)+$"),
        ({"modules_to_not_convert": "lm_head"}, "expected a list of module names"),
    ],
)
def test_a_quantization_config_that_cannot_be_served_is_refused(quantization, expected):
    with pytest.raises(ConfigError) as caught:
        dialect(**quantization)
    assert str(caught.value).startswith("config.json: quantization_config: ")
    assert expected in str(caught.value)


def test_a_head_that_is_not_converted_is_as_it_should_be():
    assert dialect(modules_to_not_convert=["lm_head"]) == dialect(modules_to_not_convert=None)


def test_masters_whose_head_would_be_ternary_are_refused():
    with pytest.raises(ConfigError, match="a ternary head is not supported"):
        dialect(linear_class="autobitlinear", quantization_mode="online", modules_to_not_convert=[])


def test_family_follows_the_architecture_then_the_model_type():
    assert find_family(ModelConfig.from_dict(TINY)).traits["attn_sub_norm"]
    assert not find_family(ModelConfig.from_dict(LLAMA)).traits
    assert find_family(ModelConfig.from_dict({**TINY, "architectures": []})).traits["ffn_sub_norm"]


@pytest.mark.parametrize(
    "change",
    [{"architectures": ["GPT2LMHeadModel"]}, {"architectures": None, "model_type": "gpt2"}],
)
def test_an_unknown_architecture_is_refused_with_the_known_ones(change):
    with pytest.raises(ConfigError) as caught:
        find_family(ModelConfig.from_dict({**TINY, **change}))
    assert "expected one of BitNetForCausalLM, BitnetForCausalLM, Llama" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])  # whatever torch_dtype says
def test_1bitllm_has_masters_and_sub_norms_of_its_own_names(tmp_path, dtype):
    made = plan(tmp_path, ONEBIT, make_tensors(ONEBIT, form="master", dtype=dtype)[0])
    assert made.dialect == Dialect(online=True, divides=False)
    assert made.spec["attn_sub_norm"] is made.spec["ffn_sub_norm"] is True
    sub_norms = "self_attn.attn_sub_norm", "self_attn.inner_attn_ln"
    canonical, stored = (f"model.layers.1.{name}.weight" for name in sub_norms)
    assert made.floats[canonical] == stored


@pytest.mark.parametrize(("key", "wanted"), [("weight_bits", 1), ("input_bits", 8)])
def test_other_bits_than_those_of_1bitllm_are_refused(tmp_path, key, wanted):
    tensors, _ = make_tensors(ONEBIT, form="master")
    message = plan_error(tmp_path, {**ONEBIT, key: 4}, tensors)
    assert message == f"config.json: {key}: expected {wanted}, got 4: it is not supported"


@pytest.mark.parametrize("config", [TINY, ONEBIT, LLAMA])
def test_a_ternary_model_is_not_ternarized(tmp_path, config):
    tensors, _ = make_tensors(config, form="master")
    write_checkpoint(tmp_path, config, tensors)
    with pytest.raises(ConfigError, match="expected full-precision weights, which ternarize is"):
        plan_model(ModelConfig.from_dict(config), Checkpoint(tmp_path), "absmean")


def test_biases_of_the_mlp_are_refused():
    with pytest.raises(ConfigError, match="mlp_bias: expected false, got true"):
        find_family(ModelConfig.from_dict({**LLAMA, "mlp_bias": True}))


@pytest.mark.parametrize(
    ("form", "mode"), [("packed", "offline"), ("unpacked", "offline"), ("master", "online")]
)
def test_stored_form_is_seen_by_its_dtype(tmp_path, form, mode):
    quantization = {**TINY["quantization_config"], "quantization_mode": mode}
    config = {**TINY, "quantization_config": quantization}
    made = plan(tmp_path, config, make_tensors(config, form=form)[0])
    assert {weight.form for weight in made.ternary} == {form}
    assert made.head == "model.embed_tokens.weight"
    assert made.spec["attn_sub_norm"] is True


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_scale_may_be_a_scalar(tmp_path, shape):
    tensors, _ = make_tensors(TINY)
    for name in tensors:
        if name.endswith("_scale"):
            tensors[name] = tensors[name].reshape(shape)
    assert plan(tmp_path, TINY, tensors).ternary


def test_biases_are_planned_where_the_config_has_them(tmp_path):
    config = {**LLAMA, "attention_bias": True}
    tensors, _ = make_tensors(config)
    for module, (n, _) in projections(config).items():
        if "self_attn" in module:
            tensors[f"{module}.bias"] = np.ones(n, np.float32)
    assert plan(tmp_path, config, tensors).floats[f"{O_PROJ}.bias"] == f"{O_PROJ}.bias"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (f"{O_PROJ}.weight", np.zeros((5, 32), np.uint8), "expected U8 (6, 32), got U8 (5, 32) in"),
        (f"{O_PROJ}.weight", np.zeros((24, 32), np.int8), "(24, 32), got I8 (24, 32) in"),
        (f"{O_PROJ}.weight_scale", np.ones(2, np.float32), "expected BF16 or F16 or F32 (1), got"),
        (f"{O_PROJ}.weight_scale", np.ones(1, np.uint8), "expected BF16 or F16 or F32 (1), got U8"),
        ("model.norm.weight", np.ones(23, np.float32), "or F32 (24), got F32 (23) in"),
        ("model.embed_tokens.weight", np.ones((50, 24), np.uint8), "(50, 24), got U8 (50, 24) in"),
    ],
)
def test_a_wrong_shape_or_dtype_is_named_with_its_file(tmp_path, name, value, expected):
    tensors = {**make_tensors(TINY)[0], name: value}
    message = plan_error(tmp_path, TINY, tensors)
    assert message.startswith(f"{name}: ")
    assert expected in message
    path = tmp_path / "model.safetensors"
    assert message.endswith(f"{path}: check that config.json belongs to these weights")


def test_missing_and_unexpected_tensors_are_listed(tmp_path):
    tensors, _ = make_tensors(TINY)
    left = {n: v for n, v in tensors.items() if not n.startswith("model.layers.1.self_attn")}
    message = plan_error(tmp_path / "a", TINY, left)
    assert f"are missing: {'model.layers.1.self_attn.attn_sub_norm.weight'}" in message
    assert "and 2 more: check that config.json belongs to these weights" in message
    extra = {**tensors, "model.layers.2.surprise": np.ones(1, np.float32)}
    message = plan_error(tmp_path / "b", TINY, extra)
    assert "does not call for are there: model.layers.2.surprise" in message


def test_old_buffers_and_the_copy_of_a_tied_head_are_passed_over(tmp_path):
    tensors, _ = make_tensors(TINY)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    assert plan(tmp_path, TINY, tensors).head == "model.embed_tokens.weight"


WINDOWED = {
    **TINY,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_local_base_freq": 100.0,
}


@pytest.mark.parametrize("config", [TINY, LLAMA, WINDOWED])
def test_a_spec_passes_its_own_check(config):
    parsed = ModelConfig.from_dict(config)
    spec = make_spec(parsed, attn_sub_norm=True, ffn_sub_norm=False)
    again = check_spec(spec, "x", PackedFileError)
    assert make_spec(again, attn_sub_norm=True, ffn_sub_norm=False) == spec


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hidden_size": 0}, "spec: hidden_size: expected a whole number"),
        ({"attn_sub_norm": 1}, "spec: attn_sub_norm: expected true or false, got 1"),
        ({"ffn_sub_norm": None}, "spec: ffn_sub_norm: expected true or false, got None"),
        ({"projection_norm": "batch_norm"}, "spec: projection_norm: expected one of (None,"),
        (
            {"activation_levels": 7},
            "activation_levels: expected one of (127, 128, 16383), got 7",
        ),
        ({"embedding_multiplier": float("nan")}, "spec: embedding_multiplier: expected a number"),
        (
            {"scale_group_size": True},
            "scale_group_size: expected a whole number above 0",
        ),
        ({"surprise": 1}, "spec: surprise: expected None, got 1"),
        ({"eos_token_ids": 2}, "spec: eos_token_ids: expected [2], got 2"),
        ({"num_key_value_heads": None}, "spec: num_key_value_heads: expected 4, got None"),
    ],
)
def test_a_spec_that_is_not_canonical_is_refused(change, expected):
    spec = make_spec(ModelConfig.from_dict(TINY), attn_sub_norm=True, ffn_sub_norm=True)
    with pytest.raises(PackedFileError) as caught:
        check_spec({**spec, **change}, "x", PackedFileError)
    assert expected in str(caught.value)


def test_a_gemma_encoder_is_planned(tmp_path):
    tensors, _ = make_tensors(GEMMA3, form="master")
    made = plan(tmp_path, GEMMA3, tensors)
    assert made.dialect == Dialect(online=True, divides=False)
    assert made.head == "embed_tokens.weight"
    wanted = {
        "tie_word_embeddings": True,
        "projection_norm": "rms_norm",
        "qk_norm": True,
        "post_norms": True,
        "embedding_multiplier": 24**0.5,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_types": ["sliding_attention", "full_attention"],
    }
    assert {name: made.spec[name] for name in wanted} == wanted


def test_names_without_a_prefix_show_an_encoder_too(tmp_path):
    config = {**GEMMA3, **QWEN3, "tie_word_embeddings": False, "quantization_config": None}
    tensors, _ = make_tensors({**config, "architectures": ["Qwen3Model"]}, form="master")
    assert plan(tmp_path / "encoder", config, tensors).head == "embed_tokens.weight"
    whole = {f"model.{name}": tensor for name, tensor in tensors.items()}
    assert "are missing: lm_head.weight" in plan_error(tmp_path / "whole", config, whole)


def test_one_is_added_to_the_gains_of_gemma_but_not_inside_its_projections(tmp_path):
    tensors, _ = make_tensors(GEMMA3, form="master", dtype=np.float16)
    write_checkpoint(tmp_path, GEMMA3, tensors)
    weights = open_checkpoint(tmp_path, "i2", "source")
    for name in ("norm", "layers.1.self_attn.q_norm", "layers.0.post_feedforward_layernorm"):
        stored = tensors[f"{name}.weight"]
        assert weights.tensors[f"model.{name}.weight"] == ("F32", stored.shape)
        got = weights.view(f"model.{name}.weight").view(np.float32)
        assert (got == stored.astype(np.float32) + np.float32(1)).all()
    inside = "layers.0.mlp.down_proj.norm.weight"
    assert weights.tensors[f"model.{inside}"][0] == "F16"
    assert (weights.view(f"model.{inside}").view(np.float16) == tensors[inside]).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"query_pre_attn_scalar": 16}, "query_pre_attn_scalar: expected 8, head_dim, got 16"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: expected null, got 50.0"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: expected false"),
        ({"rope_local_base_freq": None}, "rope_local_base_freq: expected one, as there are layers"),
    ],
)
def test_gemma_parts_that_are_not_known_are_refused(tmp_path, change, expected):
    config = {**GEMMA3, **change}
    assert expected in plan_error(tmp_path, config, make_tensors(config, form="master")[0])
