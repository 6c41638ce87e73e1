"""The original binary BitNet: signs around the mean, and what its config may say."""

import numpy as np
import pytest
from checkpoints import LLAMA, make_tensors, write_checkpoint

from bitinfer.engine import Engine
from bitinfer.errors import BitinferError
from bitinfer.families.binary import binarize
from bitinfer.families.bitlinear import read_dialect

BINARY = {"quant_method": "bitnet", "linear_class": "binary"}
PROJECTION = "model.layers.0.self_attn.o_proj.weight"


def test_signs_stand_around_the_mean_of_each_group():
    masters = np.array([[1, 3, -8, 0], [2, 2, 4, 0]], np.float32)
    codes, scales = binarize(masters, 2)
    assert codes.tolist() == [[-1, 1, -1, 1], [-1, -1, 1, 1]]  # means 2 and -1; the mean itself: -1
    assert scales.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_groups": 0}, "num_groups: expected a whole number from 1 to 1024, got 0"),
        ({"num_groups": True}, "num_groups: expected a whole number"),
        ({"layer_norm_eps": 2}, "layer_norm_eps: expected a number between 0 and 1, got 2"),
        ({"use_rms_norm": True}, "use_rms_norm: expected no such key for bitnet"),
        ({"modules_to_not_convert": ["q_proj"]}, "q_proj left dense"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(change, expected):
    with pytest.raises(BitinferError, match=expected):
        read_dialect({**BINARY, **change}, ["model.layers.0.self_attn.q_proj"], "config.json")


def refusal(folder, groups, spoil=None):
    config = {**LLAMA, "quantization_config": {**BINARY, "num_groups": groups}}
    tensors, _ = make_tensors(config, form="master")
    if spoil is not None:
        tensors[PROJECTION][1, 2] = spoil
    write_checkpoint(folder, config, tensors)
    with pytest.raises(BitinferError) as caught:
        Engine.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_groups_must_divide_the_columns(tmp_path):
    assert "num_groups: expected a divisor of 24" in refusal(tmp_path / "hf", 5)


def test_a_master_that_is_no_number_is_named(tmp_path):
    text = refusal(tmp_path / "hf", 1, np.nan)
    assert f"{PROJECTION}: row 1, column 2: expected a finite number, got nan" in text
