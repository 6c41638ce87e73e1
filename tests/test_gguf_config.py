"""What GGUF metadata say of a model, as config.json would; what they say wrong is named."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import LLAMA, TINY, make_tensors
from gguf_files import gguf_bytes
from gguf_models import F32, U32, WIDE, config_keys, floats, model_tensors

from bitinfer.engine import Engine
from bitinfer.errors import CheckpointError, ConfigError
from bitinfer.families.gguf_source import GgufSource

BITNET = {**TINY, **WIDE}
PERMUTED = {**LLAMA, **WIDE}


@pytest.mark.parametrize(
    ("arch", "fields", "message"),
    [
        ("gpt2", {}, "general.architecture: expected one of bitnet, .*got 'gpt2'"),
        ("bitnet", {"block_count": None}, "got none of bitnet.block_count"),
        ("bitnet", {"expert_count": (U32, 8)}, "bitnet.expert_count: expected no such key, got 8"),
        ("bitnet", {"rope.dimension_count": (U32, 32)}, "expected 64, the width of a head, got 32"),
        ("bitnet", {"attention.value_length": (U32, 32)}, "expected 64, the width of a head"),
        ("bitnet", {"attention.head_count": (U32, 0)}, "num_attention_heads: expected a whole"),
        ("bitnet", {"attention.head_count_kv": (9, (4, [2, 2]))}, "expected one value, got a list"),
        ("bitnet", {"rope.scaling.type": (9, (4, [2, 2]))}, "expected one value, got a list"),
        ("bitnet", {"pooling_type": (9, (4, [2, 2]))}, "pooling_type: expected 1, 2, 3, got"),
        ("bitnet", {"pooling_type": (U32, 4)}, "pooling_type: expected 1, 2, 3, got 4"),
        ("bitnet", {"rope.scaling.type": (8, "longrope")}, "rope_type: expected one of"),
        ("bitnet", {"hidden_activation": (8, "gelu")}, "hidden_act: expected .* got 'gelu'"),
        ("bitnet", {"feed_forward_length": (U32, 256)}, "blk.0.ffn_sub_norm.weight: expected"),
        ("bitnet", {"vocab_size": (U32, 51)}, "vocab_size: expected at most 50, the rows of tok"),
        ("bitnet", {"block_count": (U32, 3)}, "missing: blk.2.attn_norm.weight"),
        ("bitnet", {"block_count": (U32, 1)}, "does not call for are there: blk.1"),
    ],
)
def test_what_the_metadata_say_wrong_is_named(tmp_path, arch, fields, message):
    stored, trits = make_tensors(BITNET)
    path = tmp_path / "model.gguf"
    tensors = model_tensors(stored, trits, "TQ2_0")
    path.write_bytes(gguf_bytes(tensors, config_keys(arch, BITNET, **fields)))
    with pytest.raises((ConfigError, CheckpointError), match=message) as caught:
        Engine.load(path)
    assert "model.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "scaling"),
    [
        ({"rope.scaling.type": (8, "none")}, None),
        ({"rope.scaling.type": (8, "linear"), "rope.scaling.factor": (F32, 1.0)}, None),
        ({"rope.scaling.type": (8, "linear"), "rope.scaling.factor": (F32, 0.3)}, 0.3),
        ({"rope.scale_linear": (F32, 4.0)}, 4.0),
    ],
)
def test_rope_scaling_and_numbers_are_what_config_json_would_have(tmp_path, fields, scaling):
    stored, trits = make_tensors(BITNET)
    path = tmp_path / "model.gguf"
    keys = config_keys("bitnet", BITNET, **fields)
    path.write_bytes(gguf_bytes(model_tensors(stored, trits, "TQ2_0"), keys))
    config = GgufSource(path).config
    linear = {"rope_type": "linear", "factor": scaling}
    assert config.rope_scaling == (linear if scaling else None)
    assert (config.rms_norm_eps, config.rope_theta) == (1e-5, 10000.0)


@pytest.mark.parametrize("wrong", [1.0, 1.01, 0.0, np.nan])
def test_factors_of_rope_are_llama3s_scaling_or_refused(tmp_path, wrong):
    frequencies = 500000.0 ** -(np.arange(0, 64, 2) / 64)  # after llama.cpp's converter
    wavelengths, trained, factor = 2 * np.pi / frequencies, 8192, 8.0
    smooth = np.clip((trained / wavelengths - 1) / 3, 0, 1)
    factors = 1 / ((1 - smooth) / factor + smooth)
    factors[20] *= wrong
    stored, trits = make_tensors({**PERMUTED, "rope_theta": 500000.0})
    tensors = model_tensors(stored, trits, "TQ2_0", heads=(4, 2))
    tensors["rope_freqs.weight"] = floats(factors)
    path = tmp_path / "model.gguf"
    keys = config_keys("llama", {**PERMUTED, "rope_theta": 500000.0})
    path.write_bytes(gguf_bytes(tensors, keys))
    if wrong == 1.0:
        scaling = GgufSource(path).config.rope_scaling
        assert scaling == {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        Engine.load(path, num_threads=1)
    else:
        with pytest.raises(CheckpointError, match=r"rope_freqs.weight: .*Llama 3's RoPE scaling"):
            GgufSource(path)
