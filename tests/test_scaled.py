"""Float matrices that are ternary already: their scales and codes, bit for bit, in any dtype."""

import numpy as np
import pytest
from test_checkpoint import raw, stored

from bitinfer import _core

F32 = np.float32
DTYPES = ("f32", "f16", "bf16")
BITS = {"f32": np.uint32, "f16": np.uint16, "bf16": np.uint16}


def scaled(n, k, group, dtype, seed=0):
    """(codes int8 (N, K), bytes of the scales (groups, N), bytes of codes times scales)."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 2, (n, k)).astype(np.int8)
    scales = stored(rng.uniform(0.01, 2, (-(-k // group), n)), dtype)
    weights = codes * np.repeat(scales, group, axis=0)[:k].T
    used = np.add.reduceat(np.abs(codes.astype(int)), np.arange(0, k, group), axis=1).T > 0
    return codes, raw(scales * used, dtype), raw(weights, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "k", "group"), [(1, 1, 1), (3, 5, 2), (9, 128, 128), (17, 640, 128), (40, 300, 300)]
)
def test_scales_and_codes_are_those_that_were_multiplied(dtype, n, k, group):
    codes, scales, weights = scaled(n, k, group, dtype)
    for shift, threads in ((0, 1), (1, 2), (2, 3)):
        buffer = np.concatenate([np.zeros(shift, np.uint8), weights])[shift:]
        found, bad = _core.group_magnitudes(buffer, dtype, n, k, group, threads)
        assert bad == -1
        assert found.tobytes() == scales.tobytes()
        assert (_core.signs(buffer, dtype, n, k, threads) == codes).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_weight_of_another_magnitude_is_found(dtype, threads):
    n, k, group = 50, 300, 100
    _, _, weights = scaled(n, k, group, dtype)
    weights = weights.copy()
    bits = weights.view(BITS[dtype])
    for at in (49 * k + 299, 31 * k + 150, 31 * k + 120):
        bits[at] = (bits[at] & ~BITS[dtype](1)) ^ 0x40  # one bit of the mantissa, never zero
        assert _core.group_magnitudes(weights, dtype, n, k, group, threads)[1] == at


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_scale(dtype, value):
    weights = stored(np.zeros((3, 10)), dtype)
    weights[2, 4] = weights[2, 5] = value
    assert _core.group_magnitudes(raw(weights, dtype), dtype, 3, 10, 10)[1] == 24


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_both_signs_are_zero_and_of_every_scale(dtype):
    weights = stored(np.array([[0.0, -0.0, 1.5, -1.5, -0.0, -0.0]]), dtype)
    found, bad = _core.group_magnitudes(raw(weights, dtype), dtype, 1, 6, 4)
    assert bad == -1
    assert found.tobytes() == raw(np.array([1.5, 0.0]), dtype).tobytes()
    assert _core.signs(raw(weights, dtype), dtype, 1, 6).tolist() == [[0, 0, 1, -1, 0, 0]]


def test_a_buffer_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected 24 bytes for f16 \(3, 4\), got 23"):
        _core.group_magnitudes(np.zeros(23, np.uint8), "f16", 3, 4, 4)
    with pytest.raises(ValueError, match="group: expected at least 1, got 0"):
        _core.group_magnitudes(np.zeros(24, np.uint8), "f16", 3, 4, 0)
