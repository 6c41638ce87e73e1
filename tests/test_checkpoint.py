"""Checkpoint tensors to packed weights and int8 rows, against NumPy's own arithmetic."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import _core

F32 = np.float32


def raw(values: NDArray, dtype: str, offset: int = 0) -> NDArray[np.uint8]:
    """Bytes of float32 values stored as dtype, starting `offset` bytes into an allocation."""
    if dtype == "bf16":
        stored = (values.astype(F32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        stored = values.astype({"f32": F32, "f16": np.float16}[dtype])
    data = np.frombuffer(bytes(offset) + stored.tobytes(), np.uint8)
    return data[offset:]


def stored(values: NDArray, dtype: str) -> NDArray[np.float32]:
    """What raw() bytes mean, as float32."""
    if dtype == "bf16":
        return (values.astype(F32).view(np.uint32) & 0xFFFF0000).view(F32)
    return values.astype({"f32": F32, "f16": np.float16}[dtype]).astype(F32)


# ---- Hugging Face packed ----


def hf_bytes(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    n, k = weights.shape
    quarter = -(-n // 4)
    codes = np.zeros((4 * quarter, k), np.uint8)
    codes[:n] = weights + 1
    parts = codes.reshape(4, quarter, k)
    return parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
@pytest.mark.parametrize("n", [1, 4, 6, 7, 8, 9, 10, 160, 259])
def test_hf_rows_lie_in_four_quarters(packing, n):
    weights = np.random.default_rng(n).integers(-1, 2, (n, 333)).astype(np.int8)
    assert np.array_equal(
        _core.pack_hf(hf_bytes(weights), n, packing), _core.pack(weights, packing)
    )


def test_hf_golden_vector():
    i = np.arange(256)
    weights = (((7 * i + i // 5) % 3) - 1).astype(np.int8).reshape(8, 32)
    packed = hf_bytes(weights)
    assert packed.ravel()[:8].tolist() == [132, 17, 70, 24, 97, 132, 17, 70]
    assert np.array_equal(_core.unpack(_core.pack_hf(packed, 8, "t5"), "t5", 8, 32), weights)


def test_hf_code_3_is_refused_with_row_and_column():
    packed = hf_bytes(np.zeros((10, 20), np.int8))
    packed[1, 17] |= 0b11 << 2  # second quarter: row 3 + 1
    with pytest.raises(ValueError, match="got 3 at row 4, column 17"):
        _core.pack_hf(packed, 10, "i2")


def test_hf_codes_beyond_the_last_row_mean_nothing():
    packed = hf_bytes(np.zeros((10, 20), np.int8))
    packed[2] |= 0b11 << 6  # fourth quarter: row 9 + 2
    assert not _core.unpack(_core.pack_hf(packed, 10, "i2"), "i2", 10, 20).any()


def test_hf_byte_rows_must_fit():
    with pytest.raises(ValueError, match="expected 3 byte rows for 10 rows, got 2"):
        _core.pack_hf(np.zeros((2, 20), np.uint8), 10, "i2")


# ---- absmean ----


def absmean(w: NDArray[np.float32]) -> tuple[NDArray[np.int8], np.float32]:
    mean = F32(np.abs(w).astype(np.float64).sum() / w.size)
    reciprocal = F32(1) / np.maximum(mean, F32(1e-5))
    return np.clip(np.rint(w * reciprocal), -1, 1).astype(np.int8), F32(1) / reciprocal


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 5), (64, 1024), (70, 4099)])
def test_absmean_equals_the_formula(dtype, n, k):
    # Multiples of 1/64 below 4: every double sum is exact, so the order of adding cannot matter.
    values = np.random.default_rng(n * k).integers(-255, 256, (n, k)) / 64
    expected, scale = absmean(stored(values, dtype))
    for offset in (0, 1):
        packed, got = _core.pack_absmean(raw(values, dtype, offset), dtype, n, k, "t5")
        assert np.array_equal(_core.unpack(packed, "t5", n, k), expected)
        assert F32(got) == scale


def test_absmean_rounds_ties_to_zero():
    # mean|W| = 1, so 0.5 and -0.5 are exact ties between 0 and +-1
    values = np.array([[0.5, -0.5, 1.5, -1.5, np.nextafter(F32(0.5), F32(1)), 0.0, 1.5, 2.5]], F32)
    values[0, -1] = F32(8) - np.abs(values[0, :-1]).sum(dtype=np.float64)
    packed, scale = _core.pack_absmean(raw(values, "f32"), "f32", 1, 8, "i2")
    assert scale == 1.0
    assert _core.unpack(packed, "i2", 1, 8).tolist() == [[0, 0, 1, -1, 1, 0, 1, 1]]


def test_absmean_of_zeros_has_the_floor_as_scale():
    packed, scale = _core.pack_absmean(raw(np.zeros((4, 4)), "f32"), "f32", 4, 4, "t3")
    assert not _core.unpack(packed, "t3", 4, 4).any()
    assert F32(scale) == F32(1) / (F32(1) / F32(1e-5))


def test_absmean_does_not_depend_on_the_number_of_threads():
    values = np.random.default_rng(0).normal(size=(301, 517))
    results = [
        _core.pack_absmean(raw(values, "f32"), "f32", 301, 517, "t5", t) for t in (1, 2, 3, 7)
    ]
    for packed, scale in results[1:]:
        assert np.array_equal(packed, results[0][0])
        assert scale == results[0][1]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(dtype, bad):
    values = np.ones((40, 3000))
    values[23, 2222] = values[39, 0] = bad
    data = raw(values, dtype)
    for call in (
        lambda: _core.pack_absmean(data, dtype, 40, 3000, "t5"),
        lambda: _core.quantize_rows_i8(data, dtype, 40, 3000),
    ):
        with pytest.raises(
            ValueError, match=r"expected finite numbers, got .* at row 23, column 2222"
        ):
            call()


def test_buffer_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"expected 24 bytes for bf16 \(3, 4\), got 23"):
        _core.pack_absmean(np.zeros(23, np.uint8), "bf16", 3, 4, "t5")
    with pytest.raises(ValueError, match="expected one of f32, f16, bf16, got f64"):
        _core.quantize_rows_i8(np.zeros(32, np.uint8), "f64", 2, 2)


# ---- int8 rows of the head ----


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 63), (9, 64), (7, 1025)])
def test_int8_rows_equal_the_formula(dtype, n, k):
    values = np.random.default_rng(k).normal(size=(n, k))
    w = stored(values, dtype)
    absmax = np.abs(w).max(axis=1, keepdims=True)
    expected = np.clip(np.rint(w * (F32(127) / absmax)), -127, 127)
    codes, scales = _core.quantize_rows_i8(raw(values, dtype, offset=1), dtype, n, k)
    assert codes.shape == (n, -(-k // 64) * 64)
    assert codes.ctypes.data % 64 == 0
    assert np.array_equal(codes[:, :k], expected)
    assert not codes[:, k:].any()
    assert np.array_equal(scales, (absmax / F32(127)).ravel())


def test_int8_rows_of_zero_or_of_too_small_numbers_are_zero():
    values = np.zeros((3, 4), F32)
    values[1] = 1e-37  # 127 / absmax overflows
    values[2] = 1e-30
    codes, scales = _core.quantize_rows_i8(raw(values, "f32"), "f32", 3, 4)
    assert codes[:, :4].tolist() == [[0] * 4, [0] * 4, [127] * 4]
    assert scales.tolist() == [0, 0, F32(1e-30) / F32(127)]


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_16_bit_float_is_read_exactly(dtype):
    bits = np.arange(65536, dtype=np.uint16)
    if dtype == "f16":
        floats = bits.view(np.float16).astype(F32)
    else:
        floats = (bits.astype(np.uint32) << 16).view(F32)
    finite = np.isfinite(floats)
    bits, floats = bits[finite], np.abs(floats[finite])
    _, scales = _core.quantize_rows_i8(bits.view(np.uint8), dtype, len(bits), 1)
    with np.errstate(divide="ignore", over="ignore"):
        expected = np.where(np.isfinite(F32(127) / floats), floats / F32(127), F32(0))
    assert np.array_equal(scales, expected)
