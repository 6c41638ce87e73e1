import json

import numpy as np
import pytest
from checkpoints import LLAMA, TINY

from bitinfer.config import ModelConfig, inv_freq, local_inv_freq
from bitinfer.errors import ConfigError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


SLIDING = ["sliding_attention", "full_attention"]
WINDOWED = {**TINY, "sliding_window": 8, "layer_types": SLIDING, "rope_local_base_freq": 100.0}


def without(config, *names):
    return {name: value for name, value in config.items() if name not in names}


def refused(values):
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_are_read_from_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    config = ModelConfig.from_file(tmp_path / "config.json")
    assert config.hidden_size == 24
    assert config.head_dim == 8
    assert config.eos_token_ids == (2,)
    assert config.dtype == "float32"
    assert config.rope_scaling is None


def test_head_dim_and_kv_heads_default_as_in_llama():
    config = ModelConfig.from_dict(without(LLAMA, "head_dim", "num_key_value_heads"))
    assert (config.head_dim, config.num_key_value_heads) == (6, 4)


def test_both_rope_theta_forms_and_both_dtype_forms_are_read():
    values = without(TINY, "rope_theta", "torch_dtype")
    values["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
    values["dtype"] = "bfloat16"
    config = ModelConfig.from_dict(values)
    assert (config.rope_theta, config.rope_scaling, config.dtype) == (5e5, None, "bfloat16")


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_linear_scaling_is_read_under_both_names(key):
    config = ModelConfig.from_dict({**TINY, "rope_scaling": {key: "linear", "factor": 2}})
    assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(("ids", "expected"), [(7, (7,)), ([7, 8, 7], (7, 8)), (None, ())])
def test_eos_may_be_one_id_a_list_or_none(ids, expected):
    assert ModelConfig.from_dict({**TINY, "eos_token_id": ids}).eos_token_ids == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hidden_size": 0}, "hidden_size: expected a whole number from 1 to 1048576, got 0"),
        ({"hidden_size": True}, "hidden_size: expected a whole number from 1 to 1048576, got True"),
        ({"hidden_size": 2560.0}, "hidden_size: expected a whole number"),
        ({"vocab_size": "50"}, "vocab_size: expected a whole number from 1 to 16777216, got '50'"),
        ({"num_hidden_layers": None}, "num_hidden_layers: expected a whole number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of 4 heads, got 3"),
        ({"num_key_value_heads": 8}, "num_key_value_heads: expected a whole number from 1 to 4"),
        ({"head_dim": 5}, "head_dim: expected an even number, RoPE turns pairs, got 5"),
        ({"head_dim": None, "hidden_size": 25}, "hidden_size: expected a multiple of 4 heads"),
        ({"rms_norm_eps": 0}, "rms_norm_eps: expected a number above 0, at most 1, got 0"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps: expected a number above 0, at most 1"),
        ({"rope_theta": None}, "rope_theta: expected rope_theta, or rope_parameters with it"),
        ({"rope_theta": -1.0}, "rope_theta: expected a number above 0"),
        (
            {"rope_parameters": {"rope_theta": 1.0}},
            "rope_theta: expected 1.0 as in rope_parameters",
        ),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "got 'longrope'"),
        (
            {"rope_scaling": {**YARN, "mscale": 1.0}},
            "mscale: expected only the parameters",
        ),
        ({"rope_scaling": {**YARN, "factor": None}}, "rope_scaling: factor: expected a number"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor: expected a number"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2, "beta": 1}}, "beta: expected only"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor: expected above"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor: expected 1"),
        (
            {"hidden_act": "gelu"},
            "hidden_act: expected relu2 or silu or gelu_py",
        ),
        (
            {"layer_types": ["sliding_attention"], "sliding_window": 8},
            "layer_types: expected full_attention or sliding_attention for each of 2 layers",
        ),
        ({"layer_types": SLIDING}, "sliding_window: expected a whole number from 1"),
        ({"sliding_window": 8}, "layer_types: expected one for each layer, as there is a"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "sliding_attention: rope_type: expected default, got 'linear'",
        ),
        ({"eos_token_id": 50}, "eos_token_id: expected token ids from 0 to 49, got 50"),
        ({"bos_token_id": -1}, "bos_token_id: expected a whole number from 0 to 49, got -1"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: expected true or false, got 'yes'"),
        ({"architectures": "Llama"}, "architectures: expected a list of names"),
        ({"quantization_config": []}, "quantization_config: expected an object or null"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change, expected):
    message = refused({**TINY, **change})
    assert message.startswith("config.json: ")
    assert expected in message


def test_inv_freq_is_the_formula_in_float32():
    table = inv_freq(ModelConfig.from_dict({**TINY, "head_dim": 128, "rope_theta": 5e5}))
    exponents = (np.arange(0, 128, 2, dtype=np.float32) / np.float32(128)).astype(np.float64)
    exact = 1 / np.float64(5e5) ** exponents
    assert table.dtype == np.float32
    assert table.shape == (64,)
    assert np.all(np.abs(table - exact) <= exact * 2.0**-23)  # two roundings of half an ulp each


def test_yarn_keeps_fast_angles_and_divides_slow_ones():
    config = {**TINY, "head_dim": 64, "rope_scaling": YARN, "rope_theta": 1e6}
    plain = inv_freq(ModelConfig.from_dict({**config, "rope_scaling": None}))
    parsed = ModelConfig.from_dict(config)
    table = inv_freq(parsed)
    ratio = plain / table
    assert ratio[0] == 1
    assert np.isclose(ratio[-1], 4)
    assert (np.diff(ratio) >= -1e-6).all()
    assert parsed.rope_scaling["attention_factor"] == 0.1 * np.log(4.0) + 1
    given = ModelConfig.from_dict({**config, "rope_scaling": {**YARN, "attention_factor": 1.5}})
    assert given.rope_scaling["attention_factor"] == 1.5


def test_linear_scaling_divides():
    plain = inv_freq(ModelConfig.from_dict(TINY))
    scaled = {**TINY, "rope_scaling": {"type": "linear", "factor": 4.0}}
    assert np.array_equal(inv_freq(ModelConfig.from_dict(scaled)), plain / np.float32(4))


def test_llama3_scaling_equals_torch():
    # transformers 5.23.0, torch 2.13.0: ROPE_INIT_FUNCTIONS["llama3"] for these values.
    values = {**TINY, "head_dim": 16, "rope_scaling": LLAMA3}
    expected = [
        "0x1.0000000000000p+0",
        "0x1.f47fe80000000p-3",
        "0x1.ab5e600000000p-7",
        "0x1.030dc60000000p-8",
        "0x1.47ae140000000p-10",
        "0x1.9e7c700000000p-12",
        "0x1.0624de0000000p-13",
        "0x1.4b96c00000000p-15",
    ]
    assert [float(f).hex() for f in inv_freq(ModelConfig.from_dict(values))] == expected


def test_windows_are_read_in_every_form_in_use():
    expected = ModelConfig.from_dict(WINDOWED)
    assert (expected.sliding_window, expected.rope_local_base_freq) == (8, 100.0)
    plain = without(WINDOWED, "layer_types")
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        assert ModelConfig.from_dict({**plain, key: 2}) == expected
    by_type = without(WINDOWED, "rope_local_base_freq", "rope_theta")
    by_type["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    assert ModelConfig.from_dict(by_type) == expected
    upper = {**plain, "use_sliding_window": True, "max_window_layers": 1}
    assert ModelConfig.from_dict(upper).layer_types == tuple(reversed(SLIDING))


def test_a_window_that_no_layer_uses_is_none():
    expected = ModelConfig.from_dict(TINY)
    full = {"layer_types": ["full_attention"] * 2, "sliding_window": 8}
    assert ModelConfig.from_dict({**TINY, **full}) == expected
    off = {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0}
    assert ModelConfig.from_dict({**TINY, **off}) == expected


def test_the_local_base_is_never_scaled():
    scaled = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    config = ModelConfig.from_dict({**WINDOWED, **scaled})
    same_base = ModelConfig.from_dict({**TINY, "rope_theta": 100.0})
    assert np.array_equal(local_inv_freq(config), inv_freq(same_base))
    assert local_inv_freq(ModelConfig.from_dict(TINY)) is None


def test_gemma_calls_its_activation_otherwise():
    values = {**without(TINY, "hidden_act"), "hidden_activation": "gelu_pytorch_tanh"}
    assert ModelConfig.from_dict(values).hidden_act == "gelu_pytorch_tanh"
