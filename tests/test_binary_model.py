"""Models without a weight 0: packed as b1, kept so, and told from ternary ones."""

import numpy as np
import pytest
from checkpoints import TINY, tiny_checkpoint
from random_model import write_random_model
from test_random_model import small

from bitinfer import _core, tuning
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import CheckpointError, PackedFileError

IDS = list(range(3, 20))


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("binary") / "model"
    write_random_model(small("llama-8b"), folder, packing="b1")
    return folder


@pytest.fixture(scope="module")
def ternary(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("ternary") / "hf", TINY)


@pytest.mark.parametrize("weights", ["mmap", "copy"])
def test_auto_keeps_b1(binary, weights):
    engine = Engine.load(binary, weights=weights)
    assert (engine.packing, engine.notes) == ("b1", [])


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
def test_logits_are_those_of_every_other_packing(binary, packing):
    other = Engine.load(binary, packing=packing)
    assert other.packing == packing
    assert np.array_equal(other.logits(IDS), Engine.load(binary).logits(IDS))


def test_ternary_weights_are_refused_with_their_place(ternary, tmp_path):
    where = (
        r"_proj\.weight: b1: expected weights -1 or 1, got 0 at row 0, column \d+ in .*:"
        " take another packing$"
    )
    with pytest.raises(CheckpointError, match=where):
        convert(ternary, tmp_path / "b1", packing="b1")
    packed = convert(ternary, tmp_path / "t5", packing="t5")
    with pytest.raises(PackedFileError, match=where):
        Engine.load(packed, packing="b1")


def test_what_was_tuned_for_a_binary_model_is_not_taken_for_a_ternary_one(ternary, monkeypatch):
    facts = {"name": "", "parameters": 1, "isa": "", "cores": 1, "gemv": "dot", "weights": "copy"}
    facts |= {"threads": 1, "quiet_threads": 1, "tokens_per_s": 1.0, "ffn": "dense", "date": ""}
    tuned = tuning.Tuned(model="", packing="b1", **facts)
    monkeypatch.setattr(tuning, "find", lambda spec, key: tuned)
    assert Engine.load(ternary).packing == _core.auto_packing()
