"""Kernels of the two-plane head on every available ISA row, against NumPy."""

import numpy as np
import pytest

from bitinfer import _core

SPLITS = {"6+2": 2, "5+3": 3}  # to bits of the low plane
WIDTHS = [1, 63, 64, 65, 127, 128, 129, 256, 320, 384, 511, 512, 576, 640, 1021, 1536, 2560, 3200]

pytestmark = pytest.mark.parametrize("split", SPLITS)
each_isa = pytest.mark.parametrize("isa", _core.available_isas())


def random_codes(n: int, k: int) -> np.ndarray:
    return np.random.default_rng(n * 100_003 + k).integers(-128, 128, (n, k)).astype(np.int8)


def random_state(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(-127, 128, (2, k)).astype(np.int8)


def high_of(codes: np.ndarray, split: str) -> np.ndarray:
    return (codes.astype(np.int64) + 128) >> SPLITS[split]


@each_isa
@pytest.mark.parametrize("n", [1, 7, 8, 9, 35])
def test_sums_of_the_high_plane_equal_the_oracle(split, isa, n):
    for k in WIDTHS:
        codes, state = random_codes(n, k), random_state(k)
        high, _, _ = _core.split_head(codes, split)
        got = _core.head_high(high, split, n, k, state, isa)
        assert np.array_equal(got, state.astype(np.int64) @ high_of(codes, split).T), k


@each_isa
def test_sums_of_the_high_plane_are_exact_at_the_extremes(split, isa):
    k = 32_768
    for code in (-128, 127):
        for sign in (-1, 1):
            codes = np.full((9, k), code, np.int8)
            state = np.full((2, k), 127 * sign, np.int8)
            high, _, _ = _core.split_head(codes, split)
            got = _core.head_high(high, split, 9, k, state, isa)
            assert (got == k * 127 * sign * high_of(codes, split)[0, 0]).all()


@each_isa
def test_both_planes_join_to_the_codes(split, isa):
    for k in WIDTHS:
        codes = random_codes(5, k)
        high, low, _ = _core.split_head(codes, split)
        assert np.array_equal(_core.head_join(high, low, split, 5, k, isa), codes), k


def test_residuals_describe_the_low_plane_of_each_row(split):
    for k in WIDTHS:
        codes = random_codes(5, k)
        *_, residual = _core.split_head(codes, split)
        low = (codes.astype(np.int64) + 128) % (1 << SPLITS[split])
        twice = 2 * low - (1 << SPLITS[split]) + 1
        expected = (abs(twice) == 3).sum(1) if split == "6+2" else (twice**2).sum(1)
        assert np.array_equal(residual, expected)


def test_planes_take_the_bytes_of_the_int8_head(split):
    high, low, _ = _core.split_head(random_codes(3, 2560), split)
    assert high.size == 3 * 2560 * (8 - SPLITS[split]) // 8
    assert high.size + low.size == 3 * 2560


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s: _core.split_head(np.zeros((1, 4), np.int8), "4+4"), "6\\+2 or 5\\+3, got 4\\+4"),
        (lambda s: _core.split_head(np.zeros((1, 32_769), np.int8), s), "got \\(1, 32769\\)"),
        (
            lambda s: _core.head_high(np.zeros(5, np.uint8), s, 1, 4, np.zeros((2, 4), np.int8)),
            "high: expected 128 bytes, got 5",
        ),
    ],
)
def test_what_is_no_plane_is_refused(split, call, expected):
    with pytest.raises(ValueError, match=expected):
        call(split)
