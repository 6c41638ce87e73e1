"""The integer contract of kernel_table.h on every available ISA row, against NumPy's int32 sums.

New rows and packings are picked up by themselves. The kernels read the packed bytes in place, and
codes too if they are ``activation_bytes(K)`` long: the alignment and guard-page tests rely on it.
"""

import ctypes
import functools
import mmap

import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import _core

ISAS = _core.available_isas()
LAYOUTS = _core.layouts()
FAMILIES = ["addsub", "dot"]
WIDTHS = [2560, 6912, 640, 3200, 8640, 5460, 2, 3, 7, 127, 251, 509, 1021, 4093]  # models', primes

pytestmark = pytest.mark.parametrize("isa", ISAS)
each_packing = pytest.mark.parametrize("packing", LAYOUTS)
each_family = pytest.mark.parametrize("family", FAMILIES)


def values(packing: str) -> tuple[int, ...]:
    """The weights that a packing holds."""
    return (-1, 1) if packing == "b1" else (-1, 0, 1)


@functools.cache
def random_weights(n: int, k: int, binary: bool) -> NDArray[np.int8]:
    weights = np.random.default_rng(n * 100_003 + k).integers(-1, 2, (n, k)).astype(np.int8)
    return weights | np.int8(1) if binary else weights


@functools.cache
def random_codes(m: int, k: int) -> NDArray[np.int8]:
    return np.random.default_rng(m * 7919 + k).integers(-128, 128, (m, k)).astype(np.int8)


@functools.cache
def packed_random(packing: str, n: int, k: int) -> NDArray[np.uint8]:
    return _core.pack(random_weights(n, k, packing == "b1"), packing, 1)


def expected_random(packing: str, m: int, n: int, k: int) -> NDArray[np.int32]:
    return cached_sums(m, n, k, packing == "b1")


@functools.cache
def cached_sums(m: int, n: int, k: int, binary: bool) -> NDArray[np.int32]:
    return sums(random_codes(m, k), random_weights(n, k, binary))


def sums(codes: NDArray[np.int8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """(M, N) int32; exact in double for every K here, and quicker than NumPy's integer product."""
    return (codes.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int32)


def activation_bytes(k: int) -> int:
    """Bytes of a row of codes: whole blocks of every packing and tile, then 64-byte lines."""
    blocks = [layout["block_k"] for layout in LAYOUTS.values()]
    return max(-(-(-(-k // b) * b) // 64) * 64 for b in [*blocks, 60])


def tile_counts(packing: str) -> list[int]:
    """N of one row, and around one and two tiles; streams of unequal number."""
    rows = LAYOUTS[packing]["tile_rows"]
    return sorted({n for n in (1, rows - 1, rows, rows + 1, 2 * rows - 1, 2 * rows + 1) if n})


# ---- GEMV ----


@each_family
@each_packing
def test_gemv_equals_oracle_for_every_k_up_to_two_blocks(isa, packing, family):
    n = LAYOUTS[packing]["tile_rows"] + 1
    for k in range(1, 2 * LAYOUTS[packing]["block_k"] + 2):
        codes = random_codes(1, k)
        got = _core.ternary_gemv(packed_random(packing, n, k), packing, n, k, codes[0], family, isa)
        assert np.array_equal(got, expected_random(packing, 1, n, k)[0]), k


@each_family
@each_packing
def test_gemv_equals_oracle_on_model_widths_and_primes(isa, packing, family):
    for k in WIDTHS:
        for n in tile_counts(packing):
            packed = packed_random(packing, n, k)
            got = _core.ternary_gemv(packed, packing, n, k, random_codes(1, k)[0], family, isa)
            assert np.array_equal(got, expected_random(packing, 1, n, k)[0]), (n, k)


@each_family
@each_packing
def test_gemv_equals_oracle_on_any_number_of_streams_and_threads(isa, packing, family):
    k = 1021
    for tiles in (1, 2, 3, 5, 7, 8, 9, 17, 31):
        n = tiles * LAYOUTS[packing]["tile_rows"]
        packed = packed_random(packing, n, k)
        for num_streams in range(1, 9):
            for num_threads in (1, 3):
                got = _core.ternary_gemv(
                    packed,
                    packing,
                    n,
                    k,
                    random_codes(1, k)[0],
                    family,
                    isa,
                    num_streams,
                    num_threads,
                )
                assert np.array_equal(got, expected_random(packing, 1, n, k)[0]), (n, num_streams)


@each_family
@each_packing
def test_gemv_is_exact_on_extreme_activations_and_equal_codes(isa, packing, family):
    n = LAYOUTS[packing]["tile_rows"] + 3
    for k in (1, 5, 24, 255, 256, 1300, 6912, 23_040):
        for weight in values(packing):
            packed = _core.pack(np.full((n, k), weight, np.int8), packing)
            for code in (-128, 127):
                codes = np.full(k, code, np.int8)
                got = _core.ternary_gemv(packed, packing, n, k, codes, family, isa)
                assert (got == weight * code * k).all(), (k, weight, code)


@each_family
@each_packing
def test_gemv_is_exact_where_signs_of_weights_and_activations_agree(isa, packing, family):
    n, k = LAYOUTS[packing]["tile_rows"], 6912
    weights = random_weights(n, k, packing == "b1")
    for row in (0, n - 1):  # the largest and the smallest sum that this row can have
        for plus, minus in ((127, -128), (-128, 127)):
            codes = np.where(weights[row] > 0, plus, minus).astype(np.int8)
            packed = packed_random(packing, n, k)
            got = _core.ternary_gemv(packed, packing, n, k, codes, family, isa)
            assert np.array_equal(got, sums(codes[None], weights)[0])


# ---- GEMM ----


@each_packing
def test_gemm_equals_oracle_for_every_k_up_to_two_blocks(isa, packing):
    n = LAYOUTS[packing]["tile_rows"] + 1
    for k in range(1, 2 * LAYOUTS[packing]["block_k"] + 2):
        packed = packed_random(packing, n, k)
        for m in (1, 3):
            got = _core.ternary_gemm(packed, packing, n, k, random_codes(m, k), isa)
            assert np.array_equal(got, expected_random(packing, m, n, k)), (m, k)


@each_packing
def test_gemm_equals_oracle_on_model_widths_and_primes(isa, packing):
    for k in WIDTHS:
        for n in tile_counts(packing):
            packed = packed_random(packing, n, k)
            got = _core.ternary_gemm(packed, packing, n, k, random_codes(3, k), isa)
            assert np.array_equal(got, expected_random(packing, 3, n, k)), (n, k)


@pytest.mark.parametrize("m", [*range(1, 14), 16, 17, 33])
@each_packing
def test_gemm_equals_oracle_for_every_number_of_tokens(isa, packing, m):
    rows = LAYOUTS[packing]["tile_rows"]
    for n in (1, rows, 130, 3 * rows + 1):
        for k in (1, 24, 257, 1021):
            for num_threads in (1, 2):
                packed = packed_random(packing, n, k)
                got = _core.ternary_gemm(
                    packed, packing, n, k, random_codes(m, k), isa, num_threads
                )
                assert np.array_equal(got, expected_random(packing, m, n, k)), (n, k)


@each_packing
def test_rows_longer_than_any_scratch_memory_equal_oracle(isa, packing):
    n, k, m = LAYOUTS[packing]["tile_rows"] + 1, 23_047, 33  # 33 rows of codes: over 512 KiB
    packed, codes = packed_random(packing, n, k), random_codes(m, k)
    got = _core.ternary_gemm(packed, packing, n, k, codes, isa)
    assert np.array_equal(got, expected_random(packing, m, n, k))
    for family in FAMILIES:
        got = _core.ternary_gemv(packed, packing, n, k, codes[0], family, isa)
        assert np.array_equal(got, expected_random(packing, m, n, k)[0])


def test_gemm_writes_its_sums_into_the_given_array(isa):
    packed, codes, out = packed_random("t5", 65, 24), random_codes(3, 24), np.empty((3, 65), "i4")
    got = _core.ternary_gemm(packed, "t5", 65, 24, codes, isa, out=out)
    assert np.shares_memory(got, out)
    assert np.array_equal(out, expected_random("t5", 3, 65, 24))
    with pytest.raises(ValueError, match=r"out: expected shape \(3, 65\)"):
        _core.ternary_gemm(packed, "t5", 65, 24, codes, isa, out=np.empty((2, 65), "i4"))


@each_packing
def test_gemm_is_exact_on_extreme_activations_and_equal_codes(isa, packing):
    n = LAYOUTS[packing]["tile_rows"] + 3
    for k in (1, 257, 6912, 23_040):
        for weight in values(packing):
            packed = _core.pack(np.full((n, k), weight, np.int8), packing)
            codes = np.repeat(np.array([[-128], [127], [0], [-1]], np.int8), k, axis=1)
            got = _core.ternary_gemm(packed, packing, n, k, codes, isa)
            assert np.array_equal(got, sums(codes, np.full((n, k), weight, np.int8))), (k, weight)


def test_gemm_i8_equals_oracle(isa):
    rng = np.random.default_rng(5)
    for n, m, k in [
        (1, 1, 1),
        (2, 3, 63),
        (5, 1, 64),
        (7, 2, 65),
        (33, 5, 129),
        (64, 8, 576),
        (65, 17, 1021),
        (71, 11, 640),
        (97, 37, 4165),
    ]:
        w = rng.integers(-128, 128, (n, k)).astype(np.int8)
        a = rng.integers(-127, 128, (m, k)).astype(np.int8)
        assert np.array_equal(_core.gemm_i8(w, a, isa), sums(a, w)), (n, m, k)


def test_gemm_i8_is_exact_on_extreme_values(isa):
    for k in (64, 2560, 16_384):
        w = np.repeat(np.array([[-128], [127]], np.int8), k, axis=1)
        a = np.repeat(np.array([[127], [-127]], np.int8), k, axis=1)
        expected = k * 127 * np.array([[-128, 127], [128, -127]])
        assert np.array_equal(_core.gemm_i8(w, a, isa), expected)


# ---- memory: any alignment of codes, nothing touched outside the buffers ----


def in_place(codes: NDArray[np.int8], room: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Codes with their zero padding, written into `room`, which is exactly their size."""
    rows = room.view(np.int8).reshape(len(codes), -1)
    rows[:] = 0
    rows[:, : codes.shape[1]] = codes
    return rows


@each_packing
def test_codes_may_lie_at_any_address(isa, packing):
    n, k = LAYOUTS[packing]["tile_rows"] + 1, 517
    packed = packed_random(packing, n, k)
    for offset in range(64):
        room = np.zeros(offset + 2 * activation_bytes(k), np.uint8)[offset:]
        codes = in_place(random_codes(2, k), room)
        for family in FAMILIES:
            got = _core.ternary_gemv(packed, packing, n, k, codes[1], family, isa)
            assert np.array_equal(got, expected_random(packing, 2, n, k)[1]), offset
        assert np.array_equal(
            _core.ternary_gemm(packed, packing, n, k, codes, isa), expected_random(packing, 2, n, k)
        )


def guarded(size: int, at_end: bool) -> NDArray[np.uint8]:
    """`size` writable bytes that end (or start) at a page that may not be touched."""
    page = mmap.PAGESIZE
    span = -(-size // page) * page
    pages = np.frombuffer(mmap.mmap(-1, span + 2 * page), np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for guard in (0, page + span):
        assert protect(pages.ctypes.data + guard, page, 0) == 0
    first = page + span - size if at_end else page
    return pages[first : first + size]


@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
@each_packing
def test_nothing_outside_the_buffers_is_read(isa, packing, at_end):
    rows = LAYOUTS[packing]["tile_rows"]
    for n in (1, rows + 1, 5 * rows):
        for k in (1, 5, 24, 64, 257, 1021):
            packed = guarded(_core.packed_bytes(packing, n, k), at_end)
            packed[:] = packed_random(packing, n, k)
            codes = in_place(random_codes(2, k), guarded(2 * activation_bytes(k), at_end))
            for family in FAMILIES:
                got = _core.ternary_gemv(packed, packing, n, k, codes[int(at_end)], family, isa)
                assert np.array_equal(got, expected_random(packing, 2, n, k)[int(at_end)]), (n, k)
            got = _core.ternary_gemm(packed, packing, n, k, codes, isa)
            assert np.array_equal(got, expected_random(packing, 2, n, k)), (n, k)


@each_packing
def test_impossible_codes_give_sums_without_a_fault(isa, packing):
    n, k = 2 * LAYOUTS[packing]["tile_rows"], 1021
    packed = guarded(_core.packed_bytes(packing, n, k), at_end=True)
    packed[:] = np.random.default_rng(3).integers(0, 256, packed.size)
    packed[::7] = 255
    for family in FAMILIES:
        assert _core.ternary_gemv(
            packed, packing, n, k, random_codes(1, k)[0], family, isa
        ).shape == (n,)
    assert _core.ternary_gemm(packed, packing, n, k, random_codes(2, k), isa).shape == (2, n)


def test_codes_of_the_wrong_length_or_with_used_padding_are_refused(isa):
    packed = packed_random("t5", 3, 100)
    with pytest.raises(ValueError, match=r"expected 100 or \(read in place\) 256 columns, got 101"):
        _core.ternary_gemv(packed, "t5", 3, 100, np.zeros(101, np.int8), "dot", isa)
    codes = np.zeros((2, 256), np.int8)
    codes[1, 255] = 1
    with pytest.raises(ValueError, match="expected zeros from column 100 on, in row 1"):
        _core.ternary_gemm(packed, "t5", 3, 100, codes, isa)
    with pytest.raises(ValueError, match="got -128 in row 0"):
        _core.gemm_i8(np.zeros((1, 4), np.int8), np.full((1, 4), -128, np.int8), isa)
