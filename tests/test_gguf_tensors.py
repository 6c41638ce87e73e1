"""formats/gguf*.py: types told apart, and blocks decoded; the encoders follow the formulas."""

import hashlib
import struct

import gguf_files
import numpy as np
import pytest
from gguf_files import BLOCKS, TYPE_NUMBERS, encode_blocks, encode_rows, gguf_bytes, write_tensor

from bitinfer.errors import CheckpointError
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.gguf_tiles import I2S_LAYOUTS, Tiling, published_tiling
from bitinfer.formats.gguf_types import TYPES

# t[i] = ((7i + floor(i / 5)) mod 3) - 1, scale 0.5, and what public encoders make of it.
GOLDEN = np.array([(7 * i + i // 5) % 3 - 1 for i in range(256)], np.int8)
GOLDEN_SHA256 = {
    "I2_S": "86428007b13437d6",
    "TQ1_0": "d6fc540abf101e10",
    "TQ2_0": "a75418f702ccb19d",
    "Q2_0_64": "cd82b12d37444706",
    "Q1_0": "a3bcb69698644a9c",
}


def random_trits(n, k, seed=0):
    return np.random.default_rng(seed).integers(-1, 2, (n, k)).astype(np.int8)


def open_tensor(tmp_path, kind, shape, content):
    stored = "Q2_0" if kind.startswith("Q2_0") else kind
    return GgufFile(write_tensor(tmp_path / "x.gguf", stored, shape, content))


def refusal(file, layout=None):
    with pytest.raises(CheckpointError) as caught:
        file.trits("x", layout)
    assert str(caught.value).startswith("x: ")
    assert f" in {file.path}" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", GOLDEN_SHA256)
def test_golden_bytes_are_decoded(tmp_path, kind):
    if kind == "I2_S":
        weights = GOLDEN[None]
        content = gguf_files.i2_s(weights, 0.5, "128-block")
        digest = hashlib.sha256(content[:64])
        matrix = open_tensor(tmp_path, kind, (1, 256), content).trits("x", "128-block")
    else:
        weights = np.where(GOLDEN >= 0, 1, -1)[None] if kind == "Q1_0" else GOLDEN[None]
        content = encode_blocks(kind, weights, 0.5)
        digest = hashlib.sha256(content)
        # 64 rows of it, so that the groups of Q2_0 can be told apart.
        matrix = open_tensor(tmp_path, kind, (64, 256), content * 64).trits("x")
    assert digest.hexdigest()[:16] == GOLDEN_SHA256[kind]
    assert (matrix.trits == weights).all()
    assert (matrix.scales.tolist(), matrix.group) == ([0.5], None)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("k", [256, 768])
def test_blocks_of_any_weights_and_scales_are_decoded(tmp_path, kind, k):
    group = BLOCKS[kind][0]
    trits = random_trits(65, k)
    if kind == "Q1_0":
        trits[trits == 0] = 1
    scales = np.random.default_rng(1).standard_normal((65, k // group)).astype(np.float16)
    matrix = open_tensor(tmp_path, kind, (65, k), encode_blocks(kind, trits, scales)).trits("x")
    assert matrix.trits.dtype == np.int8
    assert (matrix.trits == trits).all()
    assert matrix.group == group
    assert matrix.scales.tobytes() == scales.astype(np.float32).tobytes()


def test_blocks_of_zeros_do_not_hinder_one_scale_for_all(tmp_path):
    trits = random_trits(4, 512)
    trits[1, :256] = trits[3] = 0
    scales = np.full((4, 2), 0.25)
    scales[1, 0] = scales[3] = 0
    matrix = open_tensor(tmp_path, "TQ2_0", (4, 512), encode_blocks("TQ2_0", trits, scales)).trits(
        "x"
    )
    assert (matrix.scales.tolist(), matrix.group) == ([0.25], None)
    trits[:] = 0
    matrix = open_tensor(tmp_path, "TQ1_0", (4, 512), encode_blocks("TQ1_0", trits, 0)).trits("x")
    assert (matrix.scales.tolist(), matrix.group) == ([1.0], None)


@pytest.mark.parametrize("kind", ["IQ1_BN", "IQ2_BN"])
@pytest.mark.parametrize("k", [64, 704])
def test_rows_with_a_scale_each_are_decoded(tmp_path, kind, k):
    trits = random_trits(65, k)
    scales = np.random.default_rng(1).uniform(0.5, 2, 65)
    scales = scales.astype({"IQ1_BN": np.float16, "IQ2_BN": np.float32}[kind])
    matrix = open_tensor(tmp_path, kind, trits.shape, encode_rows(kind, trits, scales)).trits("x")
    assert (matrix.trits == trits).all()
    assert (matrix.scales == scales[:, None]).all()
    assert (matrix.scales.shape, matrix.group) == ((65, 1), k)


def test_a_row_of_zeros_may_have_any_codes_and_does_not_hinder_one_scale(tmp_path):
    trits = random_trits(4, 128)
    trits[2] = 1  # what ik_llama.cpp writes where the largest weight is 0
    content = encode_rows("IQ2_BN", trits, [0.3, 0.3, 0, 0.3])
    matrix = open_tensor(tmp_path, "IQ2_BN", trits.shape, content).trits("x")
    assert (matrix.scales.tolist(), matrix.group) == ([np.float32(0.3)], None)
    trits[2] = 0
    assert (matrix.trits == trits).all()


def test_more_rows_than_are_decoded_at_once(tmp_path):
    trits = np.tile(random_trits(64, 2048), (20, 1))
    content = encode_blocks("TQ2_0", trits[:64], 0.5) * 20
    assert (open_tensor(tmp_path, "TQ2_0", trits.shape, content).trits("x").trits == trits).all()


@pytest.mark.parametrize("layout", I2S_LAYOUTS)
@pytest.mark.parametrize("shape", [(4, 128), (12, 96), (68, 5440), (520, 2080)])
def test_i2_s_is_decoded_in_each_byte_order(tmp_path, layout, shape):
    trits = random_trits(*shape)
    content = gguf_files.i2_s(trits, 1.2345678, layout, tail=b"\xff" * 28)
    matrix = open_tensor(tmp_path, "I2_S", shape, content).trits("x", layout)
    assert (matrix.trits == trits).all()
    assert (matrix.scales[0], matrix.group) == (np.float32(1.2345678), None)


TL1_CASES = [(64, 256, 64, 64, 32), (128, 512, 64, 128, 64), (320, 160, 160, 32, 32)]


@pytest.mark.parametrize(("n", "k", "BM", "BK", "bm"), TL1_CASES)
def test_tl1_is_decoded_with_given_tiles(tmp_path, n, k, BM, BK, bm):
    trits = random_trits(n, k)
    content = gguf_files.tl1(trits, 0.75, BM, BK, bm)
    matrix = open_tensor(tmp_path, "TL1", (n, k), content).trits("x", Tiling(BM, BK, bm))
    assert (matrix.trits == trits).all()
    assert matrix.scales.tolist() == [0.75]


TL2_CASES = [(64, 480, 64, 96), (128, 384, 64, 192), (320, 416, 160, 96), (96, 352, 32, 96)]


@pytest.mark.parametrize(("n", "k", "BM", "BK"), TL2_CASES)
def test_tl2_is_decoded_with_given_tiles(tmp_path, n, k, BM, BK):
    trits = random_trits(n, k)
    content = gguf_files.tl2(trits, 0.75, BM, BK)
    matrix = open_tensor(tmp_path, "TL2", (n, k), content).trits("x", Tiling(BM, BK, 32))
    assert (matrix.trits == trits).all()
    assert matrix.scales.tolist() == [0.75]


def test_published_tiles_are_used(tmp_path):
    trits = random_trits(1536, 1536)
    content = gguf_files.tl1(trits, 0.5, 128, 64, 64)
    assert (open_tensor(tmp_path, "TL1", trits.shape, content).trits("x").trits == trits).all()
    content = gguf_files.tl2(trits, 0.5, 128, 192)
    assert (open_tensor(tmp_path, "TL2", trits.shape, content).trits("x").trits == trits).all()
    for n, k in ((1024, 4096), (14336, 4096), (3200, 8640)):
        for kind in ("TL1", "TL2"):
            tiling = published_tiling(kind, n, k)
            assert n % tiling.BM == tiling.BM % tiling.bm == k % tiling.BK % 32 == 0


def test_tiles_that_are_not_published_or_do_not_fit_are_refused(tmp_path):
    trits = random_trits(64, 480)
    file = open_tensor(tmp_path, "TL2", (64, 480), gguf_files.tl2(trits, 1, 64, 96))
    assert "expected a shape whose TL2 tiles are published, got (64, 480): give BM" in refusal(file)
    for wrong in (Tiling(96, 96, 32), Tiling(64, 100, 32), Tiling(64, 96, 64), Tiling(64, 480, 0)):
        assert "expected tiles that fit (64, 480), bm 32, got Tiling(" in refusal(file, wrong)
    file = open_tensor(tmp_path, "TL1", (64, 256), gguf_files.tl1(trits[:, :256], 1, 64, 64, 32))
    for wrong in (Tiling(96, 64, 32), Tiling(64, 60, 32), Tiling(64, 64, 16), Tiling(64, 64, 0)):
        assert "expected tiles that fit (64, 256), bm 32 or 64, got" in refusal(file, wrong)


def test_a_layout_that_the_type_does_not_have_is_misuse(tmp_path):
    file = open_tensor(
        tmp_path, "I2_S", (4, 128), gguf_files.i2_s(random_trits(4, 128), 1, "4-row")
    )
    for wrong in (None, "32-block", Tiling(4, 4, 4)):
        with pytest.raises(
            ValueError, match="x: layout: expected one of 128-block, 64-block, 4-row"
        ):
            file.trits("x", wrong)
    content = encode_blocks("TQ2_0", random_trits(1, 256), 1)
    with pytest.raises(ValueError, match="x: layout: expected none for TQ2_0, got 4-row"):
        open_tensor(tmp_path, "TQ2_0", (1, 256), content).trits("x", "4-row")


def spoiled(content, at, byte):
    return content[:at] + bytes([byte]) + content[at + 1 :]


def test_codes_that_are_no_weights_are_named(tmp_path):
    trits = random_trits(128, 512)
    none = "expected a ternary weight, got a code that is none"
    i2_s = spoiled(gguf_files.i2_s(trits, 1, "128-block"), 128 * 3 + 32, 0b00110000)
    file = open_tensor(tmp_path, "I2_S", trits.shape, i2_s)
    assert refusal(file, "128-block").startswith(f"x: row 3, column 160: {none}")
    blocks = {
        "TQ2_0": (66 * 2 + 1, 0b11000000, (1, 97)),
        "TQ1_0": (54 * 2 + 1, next(b for b in range(256) if b not in BASE3), (1, 1)),
        "Q2_0_64": (18 * 8 + 2, 0b00001100, (1, 1)),
        "Q2_0_128": (34 * 4 + 2, 0b00001100, (1, 1)),
    }
    for kind, (at, byte, (row, column)) in blocks.items():
        file = open_tensor(
            tmp_path, kind, trits.shape, spoiled(encode_blocks(kind, trits, 1), at, byte)
        )
        assert refusal(file).startswith(f"x: row {row}, column {column}: {none}")
    wrong = next(b for b in range(256) if b not in BASE3)
    rows = {  # a row of IQ1_BN has 106 bytes, of IQ2_BN 132
        "IQ1_BN": ((106 * 2 + 2 + 13 + 4, wrong, (2, 85)), (106 + 14, wrong, (1, 15))),
        "IQ2_BN": ((132 + 4 + 16 + 3, 0b00110000, (1, 99)),),
    }
    for kind, places in rows.items():
        for at, byte, (row, column) in places:
            content = spoiled(encode_rows(kind, trits, 1), at, byte)
            file = open_tensor(tmp_path, kind, trits.shape, content)
            assert refusal(file).startswith(f"x: row {row}, column {column}: {none}")
    tl1 = spoiled(gguf_files.tl1(trits, 1, 64, 64, 32), 0, 0x90)
    assert none in refusal(open_tensor(tmp_path, "TL1", trits.shape, tl1), Tiling(64, 64, 32))
    tl2 = gguf_files.tl2(trits, 1, 64, 96)
    tl2 = spoiled(tl2, 0, 0xE0)
    assert none in refusal(open_tensor(tmp_path, "TL2", trits.shape, tl2), Tiling(64, 96, 32))


BASE3 = {-(-v * 256 // 243) for v in range(243)}


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_scale_that_is_not_finite_is_refused(tmp_path, scale):
    trits = random_trits(4, 512)
    content = encode_blocks("TQ1_0", trits, np.array([[1, 1], [1, 1], [1, scale], [1, 1]]))
    message = refusal(open_tensor(tmp_path, "TQ1_0", (4, 512), content))
    assert f"x: scale of row 2, group 1: expected a finite number, got {scale}" in message
    content = encode_rows("IQ2_BN", trits, [1, scale, 1, 1])
    message = refusal(open_tensor(tmp_path, "IQ2_BN", (4, 512), content))
    assert f"x: scale of row 1, group 0: expected a finite number, got {scale}" in message
    file = open_tensor(tmp_path, "I2_S", (4, 512), gguf_files.i2_s(trits, scale, "4-row"))
    assert f"expected a finite number, got {scale}" in refusal(file, "4-row")


def test_tensors_of_other_types_are_refused(tmp_path):
    file = open_tensor(tmp_path, "F32", (2, 4), bytes(32))
    assert "x: expected a ternary type of I2_S, TL1, TL2, TQ1_0" in refusal(file)
    assert "got F32 (2, 4)" in refusal(file)
    file = open_tensor(tmp_path, "TQ2_0", (256,), bytes(66))
    assert "x: expected a matrix, got TQ2_0 (256)" in refusal(file)
    with pytest.raises(
        CheckpointError, match=r"x: expected a type of F32, F16, .* got TQ2_0 \(256\)"
    ):
        file.floats("x")


def q2_0_file(tmp_path, *tensors):
    content = {f"t{i}": (42, shape, bytes(size)) for i, (shape, size) in enumerate(tensors)}
    path = tmp_path / "q2.gguf"
    path.write_bytes(gguf_bytes(content))
    return path


def test_types_that_share_a_number_are_told_by_their_bytes(tmp_path):
    small64, large64 = ((1, 128), 36), ((64, 128), 64 * 36)
    small128, large128 = ((1, 128), 34), ((64, 128), 64 * 34)
    for tensors, name in (((small64, large64), "Q2_0_64"), ((small128, large128), "Q2_0_128")):
        file = GgufFile(q2_0_file(tmp_path, *tensors))
        assert {tensor.type.name for tensor in file.tensors.values()} == {name}
    file = GgufFile(q2_0_file(tmp_path, ((1, 64), 18)))  # no group of 128 fits
    assert file.tensors["t0"].type.name == "Q2_0_64"
    with pytest.raises(CheckpointError, match="tensor type 42: its tensors take as many bytes as"):
        GgufFile(q2_0_file(tmp_path, small128))
    with pytest.raises(CheckpointError, match="t1: type 42: expected as many bytes as Q2_0_64 or"):
        GgufFile(q2_0_file(tmp_path, large64, large128))
    path = tmp_path / "39.gguf"
    path.write_bytes(gguf_bytes({"x": (39, (64, 512), bytes(64 * 16 * 17))}))
    assert str(GgufFile(path).tensors["x"]) == "MXFP4 (64, 512)"


def test_sizes_of_the_ternary_types_add_up_to_those_of_bitnet_2b():
    shapes = [(2560, 2560)] * 2 + [(640, 2560)] * 2 + [(6912, 2560)] * 2 + [(2560, 6912)]
    kinds = {kind.name: kind for kinds in TYPES.values() for kind in kinds}
    sizes = {
        "I2_S": 521017920,
        "TL1": 521017920,
        "TQ1_0": 439603200,
        "TQ2_0": 537292800,
        "Q2_0_64": 586137600,
        "Q2_0_128": 553574400,
        "TL2": 441474240,
        "IQ1_BN": 424688640,
        "IQ2_BN": 523745280,
    }
    for name, total in sizes.items():
        assert sum(30 * kinds[name].size(shape) for shape in shapes) == total, name


def halves(values):
    return struct.pack(f"<{len(values)}e", *values)


def slow_q6_k(block):
    """ggml's loop over a block of 210 bytes."""
    (d,) = struct.unpack("<e", block[208:])
    values = np.zeros(256, np.float32)
    for i in range(256):
        half, part, j = i // 128, i % 128 // 32, i % 32
        low = block[64 * half + 32 * (part % 2) + j] >> 4 * (part // 2) & 15
        high = block[128 + 32 * half + j] >> 2 * part & 3
        scale = struct.unpack("b", block[192 + i // 16 : 193 + i // 16])[0]
        values[i] = np.float32(d) * np.float32(scale) * np.float32((low | high << 4) - 32)
    return values


def test_float_blocks_are_decoded(tmp_path):
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (6, 208), np.uint8)
    blocks = [bytes(row) + halves([rng.standard_normal()]) for row in codes]
    read = open_tensor(tmp_path, "Q6_K", (3, 512), b"".join(blocks)).floats("x")
    assert read.tobytes() == b"".join(slow_q6_k(block).tobytes() for block in blocks)

    d, m = np.float32(np.float16(0.3)), np.float32(np.float16(-1.7))
    data = codes[0, :16]
    nibbles = np.concatenate([data & 15, data >> 4]).astype(np.float32)
    read = open_tensor(tmp_path, "Q4_0", (1, 32), halves([d]) + bytes(data)).floats("x")
    assert (read[0] == d * (nibbles - 8)).all()
    read = open_tensor(tmp_path, "Q4_1", (1, 32), halves([d, m]) + bytes(data)).floats("x")
    assert (read[0] == d * nibbles + m).all()
    data = codes[1, :32]
    read = open_tensor(tmp_path, "Q8_0", (1, 32), halves([d]) + bytes(data)).floats("x")
    assert (read[0] == d * data.view(np.int8)).all()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_floats_are_read_some_rows_at_a_time(tmp_path, kind):
    values = np.random.default_rng(0).integers(-100, 100, (7, 2, 5)).astype(np.float32)
    stored = {
        "F32": values.tobytes(),
        "F16": values.astype(np.float16).tobytes(),
        "BF16": (values.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
    }[kind]
    file = open_tensor(tmp_path, kind, values.shape, stored)
    assert (file.floats("x") == values).all()
    assert file.floats("x").shape == (7, 2, 5)
    assert (file.floats("x", 3, 6) == values.reshape(14, 5)[3:6]).all()


def test_type_numbers_are_those_of_the_reader():
    for name, number in TYPE_NUMBERS.items():
        assert name in {kind.name.removesuffix("_64") for kind in TYPES[number]}
