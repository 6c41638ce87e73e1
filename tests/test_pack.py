"""Packing: the bytes of docs/packed-format.md, round trips, refusal of what encodes nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import _core

PACKINGS = ["i2", "t3", "t5", "b1"]
SHAPES = [
    (1, 1),
    (2, 3),
    (31, 24),
    (32, 25),
    (33, 257),
    (63, 5),
    (64, 256),
    (65, 259),
    (129, 3841),
    (5, 7681),
]


def ternary(n: int, k: int, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-1, 2, (n, k)).astype(np.int8)


def weights_for(packing: str, n: int, k: int, seed: int = 0) -> NDArray[np.int8]:
    """Random weights that a packing holds: b1 has no 0."""
    weights = ternary(n, k, seed)
    return weights | np.int8(1) if packing == "b1" else weights


def padded(weights: NDArray[np.int8], rows: int, columns: int) -> NDArray[np.int64]:
    """Weights with zeros up to whole tiles and blocks."""
    n, k = weights.shape
    whole = np.zeros((-(-n // rows) * rows, -(-k // columns) * columns), np.int64)
    whole[:n, :k] = weights
    return whole


def encode_i2(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    codes = padded(weights, 1, 256).reshape(weights.shape[0], -1, 4, 64) + 1
    return (codes << np.array([0, 2, 4, 6])[:, None]).sum(axis=2).astype(np.uint8).ravel()


def encode_t3(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    whole = padded(weights, 32, 24)
    groups = whole.reshape(whole.shape[0] // 32, 32, -1, 8, 3) @ [
        9,
        3,
        1,
    ]  # (tile, row, block, group)
    values = groups.transpose(0, 2, 3, 1)  # (tile, block, group, row)
    magnitudes = abs(values[:, :, 0::2]) | abs(values[:, :, 1::2]) << 4
    signs = ((values < 0) << np.arange(7, -1, -1)[:, None]).sum(axis=2)
    packed = np.concatenate([magnitudes, signs[:, :, None]], axis=2).astype(np.uint8).ravel()
    return np.pad(packed, (0, -packed.size % 64))


def encode_t5(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    whole = padded(weights, 64, 5)
    values = whole.reshape(whole.shape[0] // 64, 64, -1, 5) @ [81, 27, 9, 3, 1]
    return (abs(values) | (values < 0) << 7).transpose(0, 2, 1).astype(np.uint8).ravel()


def encode_b1(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    bits = (padded(weights, 64, 8) > 0).reshape(-(-len(weights) // 64), 64, -1, 8)
    return np.packbits(bits, axis=3, bitorder="little")[..., 0].transpose(0, 2, 1).ravel()


ENCODERS = {"i2": encode_i2, "t3": encode_t3, "t5": encode_t5, "b1": encode_b1}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_packed_bytes_are_those_of_the_format(packing, n, k):
    weights = weights_for(packing, n, k)
    packed = _core.pack(weights, packing)
    assert packed.size == _core.packed_bytes(packing, n, k)
    assert packed.ctypes.data % 64 == 0
    assert np.array_equal(packed, ENCODERS[packing](weights))


@pytest.mark.parametrize("packing", PACKINGS)
def test_pack_then_unpack_is_the_identity_for_every_small_shape(packing):
    for n in (1, 2, 31, 32, 33, 63, 64, 65, 97):
        for k in (*range(1, 50), 255, 256, 257, 511, 512, 513, 3839, 3840, 3841):
            weights = weights_for(packing, n, k, seed=n * 10_000 + k)
            packed = _core.pack(weights, packing, 1)
            _core.validate(packed, packing, n, k, 1)
            assert np.array_equal(_core.unpack(packed, packing, n, k, 1), weights), (n, k)


def test_every_unit_value_round_trips():
    for packing, weights, values in (
        ("i2", 4, [-1, 0, 1]),
        ("t3", 3, [-1, 0, 1]),
        ("t5", 5, [-1, 0, 1]),
        ("b1", 8, [-1, 1]),
    ):
        grid = np.stack(np.meshgrid(*[values] * weights), axis=-1).reshape(-1, weights)
        grid = grid.astype(np.int8)
        packed = _core.pack(grid, packing)
        assert np.array_equal(_core.unpack(packed, packing, *grid.shape), grid)


@pytest.mark.parametrize("src", PACKINGS)
@pytest.mark.parametrize("dst", PACKINGS)
def test_repack_equals_packing_anew(src, dst):
    for n, k in SHAPES:
        weights = weights_for("b1" if "b1" in (src, dst) else src, n, k)
        repacked = _core.repack(_core.pack(weights, src), src, dst, n, k)
        assert np.array_equal(repacked, _core.pack(weights, dst)), (n, k)


@pytest.mark.parametrize("packing", PACKINGS)
def test_bytes_do_not_depend_on_the_number_of_threads(packing):
    weights = weights_for(packing, 777, 1001)
    expected = _core.pack(weights, packing, 1)
    for num_threads in (2, 3, 7):
        assert np.array_equal(_core.pack(weights, packing, num_threads), expected)
        assert np.array_equal(_core.unpack(expected, packing, 777, 1001, num_threads), weights)


def test_layouts_state_their_bits_per_weight():
    layouts = _core.layouts()
    assert list(layouts) == PACKINGS
    for layout in layouts.values():
        weights = layout["tile_rows"] * layout["block_k"]
        assert layout["bits_per_weight"] == layout["block_bytes"] * 8 / weights


# ---- refusals ----


def refused(packed: NDArray[np.uint8], packing: str, n: int, k: int) -> str:
    """The one sentence that validate, unpack and repack all give."""
    texts = []
    for call in (
        lambda: _core.validate(packed, packing, n, k),
        lambda: _core.unpack(packed, packing, n, k),
        lambda: _core.repack(packed, packing, "i2", n, k),
    ):
        with pytest.raises(ValueError, match="packed") as error:
            call()
        texts.append(str(error.value))
    assert len(set(texts)) == 1
    return texts[0]


IMPOSSIBLE = [
    # packing, byte, value, what, row, column
    ("i2", 64 * 2 * 3 + 64 + 5, 0b11_01_01_01, "code 3", 3, 256 + 192 + 5),
    ("i2", 0, 0b01_01_01_11, "code 3", 0, 0),
    ("t3", 160 * 2 + 32 * 1 + 7, 14, "magnitude above 13", 7, 2 * 24 + 6),
    ("t3", 160 * 2 + 32 * 1 + 7, 15 << 4, "magnitude above 13", 7, 2 * 24 + 9),
    ("t3", 3 * 160 * 20 + 31, 15, "magnitude above 13", 3 * 32 + 31, 0),
    ("t5", 64 * 3 + 9, 122, "magnitude above 121", 9, 15),
    ("t5", 64 * 3 + 9, 255, "magnitude above 121", 9, 15),
    ("t5", 64 * 3 + 9, 128, "negative zero", 9, 15),
]


@pytest.mark.parametrize(("packing", "byte", "value", "what", "row", "column"), IMPOSSIBLE)
def test_impossible_code_is_refused_with_its_place(packing, byte, value, what, row, column):
    n, k = 128, 480
    packed = _core.pack(ternary(n, k), packing)
    packed[byte] = value
    text = refused(packed, packing, n, k)
    assert f"{what} at row {row}, column {column} (byte {byte})" in text
    assert f"packed {packing} ({n}, {k})" in text


def test_t3_negative_zero_is_refused_in_every_group():
    for group in range(8):
        weights = np.ones((32, 24), np.int8)
        weights[5, 3 * group : 3 * group + 3] = 0
        packed = _core.pack(weights, "t3")
        packed[128 + 5] |= 1 << (7 - group)
        assert f"negative zero at row 5, column {3 * group} " in refused(packed, "t3", 32, 24)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_byte_value_is_either_refused_or_unpacks_and_packs_to_itself(packing):
    rows = _core.layouts()[packing]["tile_rows"]
    columns = _core.layouts()[packing]["block_k"]
    possible = 0
    for value in range(256):
        packed = _core.pack(np.ones((rows, columns), np.int8), packing)
        packed[3] = value
        try:
            weights = _core.unpack(packed, packing, rows, columns, 1)
        except ValueError:
            continue
        possible += 1
        assert np.array_equal(_core.pack(weights, packing, 1), packed)
    assert possible == {"i2": 3**4, "t3": 14**2, "t5": 3**5, "b1": 2**8}[packing]


@pytest.mark.parametrize("packing", PACKINGS)
def test_weight_in_padding_columns_is_refused(packing):
    columns = _core.layouts()[packing]["block_k"]
    n, k = 3, 2 * columns - 2
    weights = weights_for(packing, n, k + 1)
    weights[:, k] = -1 if packing == "b1" else 0
    weights[2, k] = 1
    wider = _core.pack(weights, packing)
    assert f"weight in the padding at row 2, column {k} " in refused(wider, packing, n, k)


@pytest.mark.parametrize("packing", ["t3", "t5", "b1"])
def test_weight_in_padding_rows_is_refused(packing):
    rows = _core.layouts()[packing]["tile_rows"]
    weights = weights_for(packing, rows, 300)
    weights[-1] = -1 if packing == "b1" else 0
    weights[-1, 7] = 1
    packed = _core.pack(weights, packing)
    assert f"weight in the padding at row {rows - 1}, column 7 " in refused(
        packed, packing, rows - 1, 300
    )


def test_tail_that_is_not_zero_is_refused():
    packed = _core.pack(ternary(32, 24), "t3")  # 160 bytes, padded to 192
    packed[191] = 1
    assert "tail of zero bytes, got 1 at byte 191" in refused(packed, "t3", 32, 24)


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
def test_first_of_several_impossible_codes_is_named_on_any_thread_count(packing):
    n, k = 640, 480
    packed = _core.pack(ternary(n, k), packing)
    bad = {"i2": 0xFF, "t3": 0xFF, "t5": 0x80}[packing]
    middle = packed.size // 64 // 2 * 64
    packed[middle + 5 :: 64] = bad
    texts = set()
    for num_threads in (1, 2, 5):
        with pytest.raises(ValueError, match="row") as error:
            _core.validate(packed, packing, n, k, num_threads)
        texts.add(str(error.value))
    assert len(texts) == 1


def test_weights_that_are_not_ternary_are_refused_with_their_place():
    for value in (2, -2, 127, -128):
        weights = ternary(100, 300)
        weights[70, 299] = weights[99, 0] = value
        with pytest.raises(ValueError, match=f"got {value} at row 70, column 299"):
            _core.pack(weights, "t5")


@pytest.mark.parametrize("k", [7, 300, 4000])
def test_first_weight_0_is_refused_by_b1_with_its_place(k):
    weights = weights_for("b1", 130, k)
    weights[65, k - 1] = weights[66, 0] = weights[129] = 0
    text = f"b1: expected weights -1 or 1, got 0 at row 65, column {k - 1}"
    for num_threads in (1, 3):
        with pytest.raises(ValueError, match=text):
            _core.pack(weights, "b1", num_threads)
        for src in ("i2", "t3", "t5"):
            with pytest.raises(ValueError, match=text):
                _core.repack(_core.pack(weights, src), src, "b1", 130, k, num_threads)


def test_wrong_sizes_names_and_dtypes_are_refused():
    packed = _core.pack(ternary(4, 300), "i2")
    with pytest.raises(ValueError, match=r"expected 512 bytes for i2 \(4, 300\), got 511"):
        _core.unpack(packed[:-1].copy(), "i2", 4, 300)
    with pytest.raises(ValueError, match="expected one of i2, t3, t5, b1, got i3"):
        _core.pack(ternary(4, 4), "i3")
    for n, k in ((0, 1), (1, 0), (-1, 1), (1, 1 << 23), (1 << 31, 1)):
        with pytest.raises(ValueError, match="expected 1 to 2"):
            _core.packed_bytes("t5", n, k)
    with pytest.raises(ValueError, match="2 dimensions"):
        _core.pack(np.zeros(4, np.int8), "i2")
    with pytest.raises(ValueError, match="num_threads: expected 0"):
        _core.pack(ternary(4, 4), "i2", -1)
    with pytest.raises(TypeError):
        _core.pack(np.zeros((4, 4), np.int32), "i2")
    with pytest.raises(TypeError):
        _core.pack(ternary(4, 8)[:, ::2], "i2")
