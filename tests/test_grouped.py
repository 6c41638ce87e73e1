"""Matrices with a weight scale for each row and group: their bytes, and layers of them."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import float_tensor

from bitinfer import _core, reference
from bitinfer.reference import Tensor

# k, columns of a group: whole rows; one and several groups in a block of i2; a last group and a
# last part that are narrower; groups wider than a block; an odd number of groups
SHAPES = [(300, 300), (384, 128), (320, 64), (400, 128), (500, 100), (900, 300), (90, 7)]


def random_weights(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return rng.integers(-1, 2, (n, k), dtype=np.int8)


def as_packed(w: np.ndarray, packing: str) -> np.ndarray:
    return w | np.int8(1) if packing == "b1" else w  # it holds no 0


def packings_for(k: int, group: int) -> list[str]:
    return [p for p in _core.layouts() if p != "t3" or group == k]


def same_bits(got: np.ndarray, expected: np.ndarray) -> bool:
    return got.shape == expected.shape and got.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("k", "group"), SHAPES)
@pytest.mark.parametrize("packing", ["i2", "t5", "b1"])
def test_packing_and_back_is_the_identity(
    packing: str, k: int, group: int, rng: np.random.Generator
) -> None:
    w = as_packed(random_weights(rng, 67, k), packing)
    packed = _core.pack(w, packing, group=group)
    assert len(packed) == _core.packed_bytes(packing, 67, k, group=group)
    assert (_core.unpack(packed, packing, 67, k, group=group) == w).all()
    assert (reference.unpack(packed, packing, 67, k, group) == w).all()
    other = "t5" if packing == "i2" else "i2"
    again = _core.repack(packed, packing, other, 67, k, group=group)
    assert same_bits(again, _core.pack(w, other, group=group))


def test_a_group_of_128_takes_26_bytes_in_t5_and_32_in_i2() -> None:
    assert _core.packed_bytes("t5", 64, 1280, group=128) == 64 * 10 * 26
    assert _core.packed_bytes("i2", 64, 1280, group=128) == 64 * 10 * 32


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
def test_one_group_is_packed_as_without_groups(packing: str, rng: np.random.Generator) -> None:
    w = random_weights(rng, 40, 130)
    assert same_bits(_core.pack(w, packing, group=130), _core.pack(w, packing))


def test_a_fault_is_named_with_the_columns_of_its_part(rng: np.random.Generator) -> None:
    w = random_weights(rng, 64, 384)
    w[3, 130] = 2
    with pytest.raises(ValueError, match=r"columns 128 to 255: weights: .* at row 3, column 2$"):
        _core.pack(w, "t5", group=128)
    w[3, 130] = 0
    packed = _core.pack(w, "t5", group=128)
    packed[64 * 26 + 5] = 0x80
    expected = r"columns 128 to 255: packed t5 \(64, 128\): negative zero at row 5, column 0 "
    for check in (_core.validate, _core.unpack):
        with pytest.raises(ValueError, match=expected):
            check(packed, "t5", 64, 384, group=128)


@pytest.mark.parametrize(
    ("packing", "group", "message"),
    [
        ("i2", 0, "group: expected 1 to 256 columns, got 0"),
        ("i2", 257, "group: expected 1 to 256 columns, got 257"),
        ("t3", 128, "packing: expected i2 or t5 for groups of 128 columns, got t3"),
    ],
)
def test_groups_that_cannot_be_are_refused(packing: str, group: int, message: str) -> None:
    w = np.zeros((8, 256), np.int8)
    with pytest.raises(ValueError, match=message):
        _core.pack(w, packing, group=group)
    with pytest.raises(ValueError, match=message):
        _core.packed_bytes(packing, 8, 256, group=group)
    if packing == "t3":
        with pytest.raises(ValueError, match=message):
            _core.repack(_core.pack(w, "i2", group=group), "i2", packing, 8, 256, group=group)


def random_layer(
    rng: np.random.Generator, m: int, n: int, k: int, group: int, dtype: str
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """(x, weights, scales); a group of x is far larger than others, one of w is all zero."""
    x = rng.normal(0, 1, (m, k)).astype(np.float32)
    x[:, : group // 2] *= 30
    w = random_weights(rng, n, k)
    w[:, -group:] = 0
    scales = rng.uniform(-0.5, 2, (-(-k // group), n)).astype(np.float32)
    return x, w, float_tensor(scales, dtype)


def expected_output(
    x: np.ndarray, w: np.ndarray, scales: Tensor, group: int, levels: int
) -> np.ndarray:
    codes, act_scale = reference.quantize(x, levels, -128 if levels == 127 else -levels)
    return reference.grouped_matmul(codes, act_scale[None], w, reference.to_f32(scales), group)


@pytest.mark.parametrize("levels", [127, 16383])
@pytest.mark.parametrize(("k", "group"), SHAPES)
def test_a_layer_equals_the_reference(
    k: int, group: int, levels: int, isa: str, rng: np.random.Generator
) -> None:
    n = 70
    dtype = {300: "f32", 384: "f16"}.get(k, "bf16")
    x, w, scales = random_layer(rng, 18, n, k, group, dtype)
    for packing in packings_for(k, group):
        weights = as_packed(w, packing)
        expected = expected_output(x, weights, scales, group, levels)
        packed = _core.pack(weights, packing, group=group)
        for m in (1, 2, 3, 5, 18):
            got = _core.grouped_linear(
                packed, packing, n, k, group, scales[0], dtype, x[:m], levels
            )
            assert same_bits(got, expected[:m]), (isa, packing, m)


@pytest.fixture
def gemv_auto():
    yield
    _core.set_gemv("auto")


@pytest.mark.usefixtures("gemv_auto")
@pytest.mark.parametrize("family", ["addsub", "dot"])
def test_both_gemv_families_equal_the_reference(
    family: str, isa: str, rng: np.random.Generator
) -> None:
    n, k, group = 1100, 384, 128  # several streams, and tiles behind them
    _core.set_gemv(family)
    for levels in (127, 16383):
        x, w, scales = random_layer(rng, 1, n, k, group, "f16")
        for packing in packings_for(k, group):
            weights = as_packed(w, packing)
            expected = expected_output(x, weights, scales, group, levels)
            packed = _core.pack(weights, packing, group=group)
            got = _core.grouped_linear(packed, packing, n, k, group, scales[0], "f16", x, levels)
            assert same_bits(got, expected), (isa, packing, levels)


@pytest.mark.parametrize("num_threads", [2, 7])
@pytest.mark.parametrize("packing", ["i2", "t5"])
def test_thread_count_changes_nothing(
    packing: str, num_threads: int, rng: np.random.Generator
) -> None:
    n, k, group = 3000, 640, 128
    x, w, scales = random_layer(rng, 40, n, k, group, "f16")
    expected = expected_output(x, w, scales, group, 16383)
    packed = _core.pack(w, packing, group=group)
    for m in (1, 40):
        arguments = (packed, packing, n, k, group, scales[0], "f16", x[:m], 16383)
        assert same_bits(_core.grouped_linear(*arguments, num_threads=num_threads), expected[:m])


def test_activations_of_15_bits_lose_little(rng: np.random.Generator) -> None:
    n, k = 64, 512
    x, w, scales = random_layer(rng, 4, n, k, k, "f32")
    w = random_weights(rng, n, k)
    exact = (x.astype(np.float64) @ w.astype(np.float64).T) * reference.to_f32(scales)[0]
    size = np.abs(x).max() * np.abs(reference.to_f32(scales)).max()
    # a code is wrong by at most half a step of absmax / 16383, and K of them add up
    for levels, bound in ((127, k / 254), (16383, k / 32766)):
        packed = _core.pack(w, "t5")
        y = _core.grouped_linear(packed, "t5", n, k, None, scales[0], "f32", x, levels)
        assert np.abs(y - exact).max() < bound * size
        assert np.abs(y - exact).max() > 0
