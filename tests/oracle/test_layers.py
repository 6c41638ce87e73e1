"""Layer by layer, on the inputs that transformers' fp32 model met: each step within 1e-5.

Our side is bitinfer/reference/, whose bits are the engine's (tests/test_exactness.py). Quantized
inputs are compared where the int8 codes agree. They do in nearly all rows: torch takes 127 / m as
127 times the reciprocal of m, which can be another last bit and decide a tie.
"""

import numpy as np
import pytest
import torch
from checkpoints import LLAMA, QWEN3
from comparisons import assert_close_rows
from encoders import encoder_oracle, write_encoder
from random_models import random_checkpoint, random_text
from test_logits import DEEP
from transformers_oracle import Oracle

from bitinfer import convert, default_model, reference
from bitinfer.config import ModelConfig, inv_freq, local_inv_freq
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
        config = ModelConfig.from_file(packed_folder / "config.json")
        tables = {"rope.inv_freq": inv_freq(config), "rope.local_inv_freq": local_inv_freq(config)}
        for name, table in tables.items():
            if table is not None:
                weights[name] = (table.view(np.uint8), "f32", table.shape)
        spec = {**DEFAULTS, **file.header.spec, "head": "source"}
        self.decoder = reference.ReferenceDecoder(spec, weights, "f32")
        self.layers = range(spec["num_hidden_layers"])
        self.positions = np.arange(len(ids), dtype=np.float32)


CASES = ["real model", "random llama", "random qwen3", "encoder qwen3", "encoder gemma3"]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    if request.param == "real model":
        oracle = request.getfixturevalue("tales32")
        return Case(oracle, request.getfixturevalue("stories")[0], default_model())
    folder = tmp_path_factory.mktemp("layers")
    kind, _, family = request.param.partition(" ")
    if kind == "encoder":
        checkpoint = write_encoder(folder / "checkpoint", family, 0)
        packed = convert.convert(checkpoint, folder / "packed", head="source")
        oracle = encoder_oracle(checkpoint, family, 0, torch.float32)
        return Case(oracle, random_text(150, 100, seed=1), packed)
    config = {**(QWEN3 if family == "qwen3" else LLAMA), **DEEP}
    checkpoint = random_checkpoint(folder / "checkpoint", config, seed=0)
    packed = convert.convert(checkpoint, folder / "packed", head="source")
    oracle = Oracle(checkpoint, torch.float32)
    return Case(oracle, random_text(config["vocab_size"], 100, seed=1), packed)


def steps(case, kind):
    found = {name: io for name, io in case.seen.items() if name.endswith(kind)}
    assert found, kind
    return found.items()


def heads(case, name):
    """What a step gave for each head, (T, heads, head_dim); Gemma3's norms see heads first."""
    rows, spec = case.seen[name][1], case.decoder.spec
    if name.endswith("norm") and spec["post_norms"]:
        return rows.reshape(-1, len(case.positions), spec["head_dim"]).swapaxes(0, 1)
    return rows.reshape(len(case.positions), -1, spec["head_dim"])


def test_norms_are_those_of_transformers(case):
    for name, (x, y) in steps(case, "norm"):
        assert_close_rows(case.decoder.norm(x, f"{name}.weight"), y, name)


def test_projections_are_those_of_transformers_where_the_codes_agree(case):
    for name, (x, y) in steps(case, "_proj"):
        normed = case.decoder.own_norm(x, name)
        codes, _ = reference.quantize(normed, 127, -128)
        t = torch.from_numpy(case.seen[f"{name}.norm"][1] if f"{name}.norm" in case.seen else x)
        scale = 127 / t.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
        difference = np.abs(codes - (t * scale).round().clamp(-128, 127).numpy()).max(axis=1)
        same = difference == 0
        assert difference.max() <= 1, name
        assert same.mean() >= 0.95, name
        assert_close_rows(case.decoder.linear(x, name)[same], y[same], name)


def test_rope_and_attention_are_those_of_transformers(case):
    spec = case.decoder.spec
    after = "attn_sub_norm" if spec["attn_sub_norm"] else "o_proj"
    for layer in case.layers:
        at = f"model.layers.{layer}.self_attn"
        steps = (
            ("q_norm", "k_norm", "v_proj") if spec["qk_norm"] else ("q_proj", "k_proj", "v_proj")
        )
        q, k, v = (heads(case, f"{at}.{step}") for step in steps)
        window = case.decoder.window(layer)
        table = "rope.inv_freq" if window is None else "rope.local_inv_freq"
        angles = case.positions[:, None] * reference.to_f32(case.decoder.weights[table])
        sin, cos = reference.sin_cos_f32(angles)
        q, k = reference.rope(q, cos, sin), reference.rope(k, cos, sin)
        out = reference.attention(q, k, v, window=window)
        assert_close_rows(out.reshape(len(out), -1), case.seen[f"{at}.{after}"][0], at)


def test_gated_activation_is_that_of_transformers(case):
    after = "ffn_sub_norm" if case.decoder.spec["ffn_sub_norm"] else "down_proj"
    for layer in case.layers:
        at = f"model.layers.{layer}.mlp"
        gate, up = case.seen[f"{at}.gate_proj"][1], case.seen[f"{at}.up_proj"][1]
        h = reference.gated(gate, up, case.decoder.spec["hidden_act"])
        assert_close_rows(h, case.seen[f"{at}.{after}"][0], at)


def test_head_is_that_of_transformers(case):
    _, last = case.seen["model.norm"]
    assert_close_rows(case.decoder.head(last), case.seen["lm_head"][1], "lm_head")
