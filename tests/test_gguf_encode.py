"""Ternary blocks as bytes, against golden vectors and the formulas of ``gguf_files``."""

import hashlib

import gguf_files
import numpy as np
import pytest

from bitinfer.formats.gguf_encode import BLOCKS, encode_ternary


def encoded(kind, trits, scale):
    chunks = encode_ternary(kind, np.asarray(trits, np.int8), np.float32(scale))
    return b"".join(chunk.tobytes() for chunk in chunks)


@pytest.mark.parametrize(
    ("kind", "first", "last", "digest"),
    [
        (
            "TQ1_0",
            [70, 93, 209, 24, 116, 70, 93, 209],
            [35, 95, 203, 67, 0, 56],
            "d6fc540abf101e10",
        ),
        ("TQ2_0", [88, 129, 22, 96, 5, 88, 129, 22], [129, 22, 96, 5, 0, 56], "a75418f702ccb19d"),
        ("I2_S", [37, 66, 148, 9, 80, 37, 66, 148], [], "86428007b13437d6"),
    ],
)
def test_the_golden_vector(kind, first, last, digest):
    i = np.arange(256)
    data = encoded(kind, ((7 * i + i // 5) % 3 - 1)[None], 0.5)
    codes = data[:64] if kind == "I2_S" else data
    assert list(codes[:8]) == first
    assert list(codes[len(codes) - len(last) :]) == last
    assert hashlib.sha256(codes).hexdigest()[:16] == digest


def test_i2_s_ends_with_its_scale_and_zeros(rng):
    data = encoded("I2_S", rng.integers(-1, 2, (3, 256)), 0.1)
    assert len(data) == 3 * 256 // 4 + 32
    assert data[192:] == np.float32(0.1).tobytes() + bytes(28)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("shape", [(1, 256), (5, 768), (300, 4096)])  # the last in two chunks
def test_every_matrix_follows_the_formulas(rng, kind, shape):
    trits = rng.integers(-1, 2, shape, np.int8)
    trits[0, :256] = 0
    if kind == "I2_S":
        expected = gguf_files.i2_s(trits, 1.5, "128-block")
    else:
        scales = np.full((shape[0], shape[1] // 256), 1.5)
        scales[0, 0] = 0  # of a block of zeros
        trits, scales = trits[:5], scales[:5]
        expected = gguf_files.encode_blocks(kind, trits, scales)
    assert encoded(kind, trits, 1.5) == expected
