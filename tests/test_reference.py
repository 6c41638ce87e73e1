"""The NumPy reference against what is not ours: NumPy's own functions and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny_models import BITNET, LLAMA, Spec, float_tensor, make_tiny_model

from bitinfer import _core, reference


@pytest.mark.parametrize("packing", ["i2", "t3", "t5", "b1"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (33, 25), (64, 256), (65, 257), (7, 6)])
def test_unpack_inverts_pack(packing: str, n: int, k: int, rng: np.random.Generator) -> None:
    w = rng.choice(np.array([-1, 1] if packing == "b1" else [-1, 0, 1], np.int8), (n, k))
    assert (reference.unpack(_core.pack(w, packing), packing, n, k) == w).all()


def test_sum16_adds_in_the_documented_order(rng: np.random.Generator) -> None:
    x = rng.normal(0, 1, 37).astype(np.float32)
    lanes = [np.float32(0)] * 16
    for i, value in enumerate(x):
        lanes[i % 16] = lanes[i % 16] + value
    for half in (8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    assert reference.sum16(x) == lanes[0]


def test_exp_is_close_to_the_true_one() -> None:
    x = np.linspace(-87.3, 88.3, 50_001, dtype=np.float32)
    relative = reference.exp_f32(x) / np.exp(x.astype(np.float64)) - 1
    assert np.abs(relative).max() < 1.2e-7  # one unit in the last place


def test_exp_ends_in_zero_and_infinity() -> None:
    x = np.array([-np.inf, -200, -87.4, 0, 89, 300, np.inf], np.float32)
    assert reference.exp_f32(x).tolist() == [0, 0, 0, 1, math.inf, math.inf, math.inf]


def test_gelu_is_close_to_the_true_one() -> None:
    gate = np.concatenate(
        [np.linspace(-9, 9, 20_001), [0.0, -0.0, 1e-30, 50.0, -50.0, 1e12, -1e12]]
    )
    gate = gate.astype(np.float32)
    wide = gate.astype(np.float64)
    u = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    true = np.where(u < -44, 0, wide / (1 + np.exp(-2 * np.maximum(u, -44))))
    got = reference.gated(gate, np.ones_like(gate), "gelu_pytorch_tanh")
    # Six roundings of 2^-24; those of the exponent count as often as it is large.
    assert (np.abs(got - true) <= np.abs(true) * (6 + 8 * np.abs(u)) * 2.0**-24 + 1e-36).all()


def test_sin_cos_round_the_true_values(rng: np.random.Generator) -> None:
    angles = np.concatenate([rng.uniform(0, 131_072, 5_000), np.arange(-8, 9) * np.pi / 4])
    angles = angles.astype(np.float32)
    sin, cos = reference.sin_cos_f32(angles)
    wide = angles.astype(np.float64)
    assert (sin == np.sin(wide).astype(np.float32)).all()
    assert (cos == np.cos(wide).astype(np.float32)).all()


@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 1_000_042.0, 0.5])
def test_pow_is_close_to_the_true_one(base: float) -> None:
    exponents = np.linspace(0, 1, 129)
    relative = reference.pow_f64(base, exponents) / base**exponents - 1
    assert np.abs(relative).max() < 1e-14


def test_quantize_rounds_half_to_even_and_keeps_zero_rows() -> None:
    x = np.array([[127, 0.5, 1.5, -0.5, 2.5], [0, 0, 0, 0, 0]], np.float32)
    codes, scale = reference.quantize(x, 127, -128)
    assert codes.tolist() == [[127, 0, 2, 0, 2], [0] * 5]
    assert scale.tolist() == [1.0, np.float32(1e-5) / np.float32(127)]


@pytest.mark.parametrize(
    ("kv_cache", "tolerance"),
    [("f32", 2e-6), ("f16", 2e-3), ("int8", 0.06)],  # of numbers of order 1
)
def test_attention_is_softmax_attention(
    kv_cache: str, tolerance: float, rng: np.random.Generator
) -> None:
    tokens, heads, kv_heads, d = 150, 4, 2, 24
    q = rng.normal(0, 1, (tokens, heads, d))
    k, v = rng.normal(0, 1, (2, tokens, kv_heads, d))
    got = reference.attention(*(x.astype(np.float32) for x in (q, k, v)), kv_cache)
    unseen = np.triu(np.full((tokens, tokens), -np.inf), 1)
    for h in range(heads):
        scores = q[:, h] @ k[:, h // 2].T / np.sqrt(d) + unseen
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        true = weights / weights.sum(axis=1, keepdims=True) @ v[:, h // 2]
        assert np.abs(got[:, h] - true).max() < tolerance


def test_short_numbers_times_halves_are_exact_in_fp32(rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(0, 1, 1000), [2.0**-100, 2 / 3 * 2.0**-99, -(2.0**100) / 3]])
    short = reference.shorten(x.astype(np.float32))
    assert np.abs(short / x - 1).max() <= 2.0**-13
    assert reference.shorten(np.array([2.0**-101, 0], np.float32)).tolist() == [0, 0]
    halves = np.array([2.0**-24, 1023 * 2.0**-24, 2047 * 2.0**-11, 65504], np.float16)
    product = short[:, None] * halves.astype(np.float32)
    assert (product == short[:, None].astype(np.float64) * halves.astype(np.float64)).all()


@pytest.mark.parametrize("base", [BITNET, LLAMA])
def test_projection_is_close_to_float64_where_codes_agree(base: Spec) -> None:
    spec, weights = make_tiny_model(base=base)
    model = reference.ReferenceDecoder(spec, weights)
    x = model.embed(np.arange(20, dtype=np.int32))
    x = model.norm(x, "model.layers.0.input_layernorm.weight")
    name = "model.layers.0.self_attn.q_proj"
    raw, packing, (n, k) = weights[f"{name}.weight"]
    codes, scale = reference.quantize(x, 127, -128)
    true = codes.astype(np.float64) * scale[:, None] @ reference.unpack(raw, packing, n, k).T
    true = true * reference.to_f32(weights[f"{name}.weight_scale"])
    np.testing.assert_allclose(model.linear(x, name), true, rtol=2e-7, atol=0)


def test_float_tensors_are_widened_exactly() -> None:
    x = np.array([1.0, -0.0, 6.1e-5, 2.5, 65504.0, 5.9604645e-08], np.float32)
    assert (reference.to_f32(float_tensor(x, "f16")) == x.astype(np.float16)).all()
    assert (reference.to_f32(float_tensor(x[[0, 1, 3]], "bf16")) == x[[0, 1, 3]]).all()
