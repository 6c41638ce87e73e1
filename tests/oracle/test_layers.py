"""Layer by layer, on the inputs that transformers' fp32 model met: each step within 1e-5.

Our side is bitinfer/reference.py, whose bits are the engine's (tests/test_exactness.py). Quantized
inputs are compared where the int8 codes agree. They do in nearly all rows: torch takes 127 / m as
127 times the reciprocal of m, which can be another last bit and decide a tie.
"""

import numpy as np
import pytest
import torch
from checkpoints import LLAMA, QWEN3
from comparisons import assert_close_rows
from random_models import random_checkpoint, random_text
from test_logits import DEEP
from transformers_oracle import Oracle

from bitinfer import convert, default_model, reference
from bitinfer.config import ModelConfig, inv_freq
from bitinfer.families.spec import DEFAULTS
from bitinfer.formats.packed import PACKED_NAME, PackedFile


class Case:
    """What an oracle did on one text, and the reference decoder of the same weights."""

    def __init__(self, oracle, ids, packed_folder):
        self.seen = oracle.record(ids)
        file = PackedFile(packed_folder / PACKED_NAME)
        weights = {
            n: file.tensor(n) for n in file if "lm_head" not in n or file.header.head != "int8"
        }
        table = inv_freq(ModelConfig.from_file(packed_folder / "config.json"))
        weights["rope.inv_freq"] = (table.view(np.uint8), "f32", table.shape)
        spec = {**DEFAULTS, **file.header.spec, "head": "source"}
        self.decoder = reference.ReferenceDecoder(spec, weights, "f32")
        self.layers = range(spec["num_hidden_layers"])
        self.positions = np.arange(len(ids), dtype=np.float32)


@pytest.fixture(scope="module", params=["real model", "random llama", "random qwen3"])
def case(request, tmp_path_factory):
    if request.param == "real model":
        oracle = request.getfixturevalue("tales32")
        return Case(oracle, request.getfixturevalue("stories")[0], default_model())
    folder = tmp_path_factory.mktemp("layers")
    config = {**(QWEN3 if request.param.endswith("qwen3") else LLAMA), **DEEP}
    checkpoint = random_checkpoint(folder / "checkpoint", config, seed=0)
    packed = convert.convert(checkpoint, folder / "packed", head="source")
    oracle = Oracle(checkpoint, torch.float32)
    return Case(oracle, random_text(config["vocab_size"], 100, seed=1), packed)


def steps(case, kind):
    found = {name: io for name, io in case.seen.items() if name.endswith(kind)}
    assert found, kind
    return found.items()


def test_norms_are_those_of_transformers(case):
    for name, (x, y) in steps(case, "norm"):
        assert_close_rows(case.decoder.norm(x, f"{name}.weight"), y, name)


def test_projections_are_those_of_transformers_where_the_codes_agree(case):
    for name, (x, y) in steps(case, "_proj"):
        codes, _ = reference.quantize(x, 127, -128)
        t = torch.from_numpy(x)
        scale = 127 / t.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
        difference = np.abs(codes - (t * scale).round().clamp(-128, 127).numpy()).max(axis=1)
        same = difference == 0
        assert difference.max() <= 1, name
        assert same.mean() >= 0.95, name
        assert_close_rows(case.decoder.linear(x, name)[same], y[same], name)


def test_rope_and_attention_are_those_of_transformers(case):
    spec = case.decoder.spec
    angles = case.positions[:, None] * reference.to_f32(case.decoder.weights["rope.inv_freq"])
    sin, cos = reference.sin_cos_f32(angles)
    after = "attn_sub_norm" if spec["attn_sub_norm"] else "o_proj"
    for layer in case.layers:
        at = f"model.layers.{layer}.self_attn"
        steps = (
            ("q_norm", "k_norm", "v_proj") if spec["qk_norm"] else ("q_proj", "k_proj", "v_proj")
        )
        q, k, v = (
            case.seen[f"{at}.{step}"][1].reshape(len(case.positions), -1, spec["head_dim"])
            for step in steps
        )
        out = reference.attention(reference.rope(q, cos, sin), reference.rope(k, cos, sin), v)
        assert_close_rows(out.reshape(len(out), -1), case.seen[f"{at}.{after}"][0], at)


def test_gated_activation_is_that_of_transformers(case):
    after = "ffn_sub_norm" if case.decoder.spec["ffn_sub_norm"] else "down_proj"
    for layer in case.layers:
        at = f"model.layers.{layer}.mlp"
        gate, up = case.seen[f"{at}.gate_proj"][1], case.seen[f"{at}.up_proj"][1]
        if case.decoder.spec["hidden_act"] == "relu2":
            h = np.square(np.maximum(gate, np.float32(0))) * up
        else:
            one = np.float32(1)
            h = (gate / (one + reference.exp_f32(-gate))) * up
        assert_close_rows(h, case.seen[f"{at}.{after}"][0], at)


def test_head_is_that_of_transformers(case):
    _, last = case.seen["model.norm"]
    assert_close_rows(case.decoder.head(last), case.seen["lm_head"][1], "lm_head")
