"""benchmarks/random_model.py: exact shapes, valid files, the same bytes whatever the block size."""

import numpy as np
import pytest
import random_model
from random_model import SHAPES, ZERO_FRACTION, Shape, write_random_model

from bitinfer import Model, _core
from bitinfer.config import ModelConfig
from bitinfer.families.spec import make_spec, ternary_shapes
from bitinfer.formats.packed import PACKED_NAME, PackedFile

SMALL = {
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "vocab_size": 700,
    "bos_token_id": 698,
    "eos_token_id": 699,
}


def small(name, **changes):
    """The shape of that name with small dimensions."""
    return Shape({**SHAPES[name].config, **SMALL, **changes}, SHAPES[name].sub_norms)


@pytest.mark.parametrize(
    ("name", "ternary"),
    [  # formats: the real models' counts of ternary weights
        ("bitnet-2b-4t", 2_084_044_800),
        ("bitnet-700m", 679_477_248),
        ("bitnet-3b", 3_221_504_000),
        ("llama-8b", 6_979_321_856),
    ],
)
def test_shape_has_the_real_models_number_of_ternary_weights(name, ternary):
    shape = SHAPES[name]
    spec = make_spec(
        ModelConfig.from_dict(shape.config),
        attn_sub_norm=shape.sub_norms,
        ffn_sub_norm=shape.sub_norms,
    )
    assert sum(n * k for n, k in ternary_shapes(spec).values()) == ternary


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
@pytest.mark.parametrize("head", ["int8", "source"])
@pytest.mark.parametrize("name", SHAPES)
def test_random_model_generates_text(name, packing, head, tmp_path):
    write_random_model(small(name), tmp_path / "model", packing=packing, head=head)
    with Model.load(tmp_path / "model", packing=packing, head=head) as model:
        done = model.generate("some text", max_tokens=5, temperature=0)
    assert done.text
    assert done.usage.completion_tokens <= 5


def test_file_is_the_same_whatever_the_block_size(tmp_path, monkeypatch):
    shape = small("llama-8b")
    write_random_model(shape, tmp_path / "whole", packing="t3")
    monkeypatch.setattr(random_model, "BLOCK_VALUES", 64 * 96)
    write_random_model(shape, tmp_path / "blocks", packing="t3")
    whole, blocks = ((tmp_path / n / PACKED_NAME).read_bytes() for n in ("whole", "blocks"))
    assert whole == blocks


def test_weights_have_the_real_share_of_zeros(tmp_path):
    write_random_model(small("bitnet-2b-4t"), tmp_path / "model", packing="t5")
    file = PackedFile(tmp_path / "model" / PACKED_NAME)
    file.validate_codes()
    zeros, count = 0, 0
    for name, (n, k) in file.header.ternary.items():
        weights = _core.unpack(file.tensor(name)[0], "t5", n, k)
        zeros, count = zeros + np.count_nonzero(weights == 0), count + weights.size
    assert zeros / count == pytest.approx(ZERO_FRACTION, abs=0.01)  # 5 sigma of 2e5 draws: 0.006
