"""The C library through cffi: the installed header, called as a stranger's program would."""

import mmap
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cffi
import numpy as np
import pytest
from numpy.typing import NDArray

import bitinfer
from bitinfer import _core, runtime

PACKINGS = {"i2": 0, "t3": 1, "t5": 2, "b1": 3}
OK, ARGUMENT, CODE, ISA = range(4)
LIBRARY = runtime.library_dir() / (
    "libbitinfer.dylib" if sys.platform == "darwin" else "libbitinfer.so"
)


def declarations() -> str:
    """bitinfer.h as cffi takes it: no preprocessor, no comments, no C++ braces."""
    text = (runtime.include_dir() / "bitinfer.h").read_text()
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.DOTALL)
    text = re.sub(r"^#.*", "", text, flags=re.MULTILINE)
    return text.replace("BITINFER_API", "")


ffi = cffi.FFI()
ffi.cdef(declarations())
lib = ffi.dlopen(str(LIBRARY))


def pointer(array: NDArray, offset: int = 0):
    kind = {"int8": "int8_t*", "uint8": "uint8_t*", "int32": "int32_t*"}[array.dtype.name]
    return ffi.cast(kind, array.ctypes.data + offset)


def last_error() -> str:
    return ffi.string(lib.bitinfer_last_error()).decode()


def ok(status: int) -> None:
    assert status == lib.BITINFER_OK, last_error()


def aligned(size: int) -> NDArray[np.uint8]:
    room = np.zeros(size + 64, np.uint8)
    first = -room.ctypes.data % 64
    return room[first : first + size]


def held_by(packing: str, matrix: NDArray[np.int8]) -> NDArray[np.int8]:
    """The matrix; 1 for 0 where b1 is to hold it."""
    return matrix | np.int8(1) if packing == "b1" else matrix


def packed_size(packing: str, n: int, k: int) -> int:
    size = ffi.new("size_t*")
    ok(lib.bitinfer_packed_size(PACKINGS[packing], n, k, size))
    return size[0]


def pack(weights: NDArray[np.int8], packing: str) -> NDArray[np.uint8]:
    packed = aligned(packed_size(packing, *weights.shape))
    ok(
        lib.bitinfer_pack(
            PACKINGS[packing], *weights.shape, pointer(weights), pointer(packed), packed.size, 1
        )
    )
    return packed


@pytest.fixture
def matrix() -> NDArray[np.int8]:
    return np.random.default_rng(0).integers(-1, 2, (70, 300)).astype(np.int8)


@pytest.fixture
def codes() -> NDArray[np.int8]:
    return np.random.default_rng(1).integers(-128, 128, (3, 300)).astype(np.int8)


def test_version_is_that_of_the_package():
    assert ffi.string(lib.bitinfer_version()).decode() == bitinfer.__version__


@pytest.mark.skipif(
    shutil.which("nm") is None or sys.platform == "darwin", reason="needs nm of binutils"
)
def test_library_exports_the_header_and_nothing_else():
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert exported == set(re.findall(r"\b(bitinfer_\w+)\(", declarations()))


def test_rows_are_listed_best_first_and_can_be_chosen():
    names = []
    while name := lib.bitinfer_available_isa(len(names)):
        names.append(ffi.string(name).decode())
    assert names == _core.available_isas()
    for name in reversed(names):
        ok(lib.bitinfer_set_isa(name.encode()))
        assert ffi.string(lib.bitinfer_active_isa()).decode() == name


@pytest.mark.parametrize("packing", PACKINGS)
def test_pack_unpack_and_validate_agree_with_the_module(matrix, packing):
    matrix = held_by(packing, matrix)
    packed = pack(matrix, packing)
    assert np.array_equal(packed, _core.pack(matrix, packing))
    ok(lib.bitinfer_validate(PACKINGS[packing], 70, 300, pointer(packed), packed.size, 2))
    back = np.zeros_like(matrix)
    ok(
        lib.bitinfer_unpack(
            PACKINGS[packing], 70, 300, pointer(packed), packed.size, pointer(back), 2
        )
    )
    assert np.array_equal(back, matrix)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("packing", PACKINGS)
def test_gemv_and_gemm_equal_numpy(matrix, codes, packing, isa):
    matrix = held_by(packing, matrix)
    ok(lib.bitinfer_set_isa(isa.encode()))
    packed = pack(matrix, packing)
    expected = codes.astype(np.int32) @ matrix.T.astype(np.int32)
    acc = np.zeros((3, 70), np.int32)
    for num_threads in (0, 1, 3):
        for family in (lib.BITINFER_GEMV_AUTO, lib.BITINFER_GEMV_ADDSUB, lib.BITINFER_GEMV_DOT):
            acc[:] = -1
            ok(
                lib.bitinfer_gemv(
                    PACKINGS[packing],
                    family,
                    70,
                    300,
                    pointer(packed),
                    packed.size,
                    pointer(codes),
                    pointer(acc),
                    num_threads,
                )
            )
            assert np.array_equal(acc[0], expected[0])
            assert (acc[1:] == -1).all()
        ok(
            lib.bitinfer_gemm(
                PACKINGS[packing],
                3,
                70,
                300,
                pointer(packed),
                packed.size,
                pointer(codes),
                pointer(acc),
                num_threads,
            )
        )
        assert np.array_equal(acc, expected)


def test_activations_and_sums_need_no_alignment_beyond_their_type(matrix, codes):
    packed = pack(matrix, "t5")
    room = np.zeros(302 + 71 * 4, np.uint8)
    room[1:301] = codes[0].view(np.uint8)
    acc = ffi.cast("int32_t*", room.ctypes.data + 304)
    activations = ffi.cast("int8_t*", room.ctypes.data + 1)
    ok(lib.bitinfer_gemv(2, 0, 70, 300, pointer(packed), packed.size, activations, acc, 1))
    expected = codes[0].astype(np.int32) @ matrix.T.astype(np.int32)
    assert np.array_equal(np.frombuffer(ffi.buffer(acc, 280), np.int32), expected)


def test_impossible_bytes_and_weights_are_named(matrix):
    packed = pack(matrix, "t5")
    packed[64 + 3] = 122
    for status in (
        lib.bitinfer_validate(2, 70, 300, pointer(packed), packed.size, 1),
        lib.bitinfer_unpack(2, 70, 300, pointer(packed), packed.size, pointer(matrix), 1),
    ):
        assert status == CODE
        assert "magnitude above 121 at row 3, column 5 (byte 67)" in last_error()
    matrix[4, 7] = 2
    assert lib.bitinfer_pack(2, 70, 300, pointer(matrix), pointer(packed), packed.size, 1) == CODE
    assert last_error() == "weights: expected -1, 0 or 1, got 2 at row 4, column 7"
    matrix[:] = 1
    matrix[4, 7] = 0
    packed = aligned(packed_size("b1", 70, 300))
    assert lib.bitinfer_pack(3, 70, 300, pointer(matrix), pointer(packed), packed.size, 1) == CODE
    assert last_error() == "b1: expected weights -1 or 1, got 0 at row 4, column 7"


def test_every_wrong_argument_has_its_sentence(matrix, codes):
    packed = pack(matrix, "t5")
    acc = np.zeros((3, 70), np.int32)
    p, size, a, out, null = pointer(packed), packed.size, pointer(codes), pointer(acc), ffi.NULL
    w = pointer(matrix)
    room = ffi.new("size_t*")
    for call, text in [
        (lambda: lib.bitinfer_packed_size(4, 70, 300, room), "packing: expected 0 to 3, got 4"),
        (
            lambda: lib.bitinfer_packed_size(2, 0, 300, room),
            "n: expected 1 to 2^31 - 1 rows, got 0",
        ),
        (
            lambda: lib.bitinfer_packed_size(2, 70, 1 << 23, room),
            "k: expected 1 to 2^23 - 1 columns",
        ),
        (lambda: lib.bitinfer_packed_size(2, 70, 300, null), "size: expected a pointer, got null"),
        (lambda: lib.bitinfer_pack(2, 70, 300, null, p, size, 1), "weights: expected a pointer"),
        (lambda: lib.bitinfer_pack(2, 70, 300, w, null, size, 1), "packed: expected a pointer"),
        (
            lambda: lib.bitinfer_pack(2, 70, 300, w, p, size - 1, 1),
            f"packed_size: expected {size}, got {size - 1}",
        ),
        (
            lambda: lib.bitinfer_pack(2, 70, 300, w, p, size, -1),
            "num_threads: expected 0 (all) or more, got -1",
        ),
        (lambda: lib.bitinfer_unpack(2, 70, 300, null, size, w, 1), "packed: expected a pointer"),
        (lambda: lib.bitinfer_unpack(2, 70, 300, p, size, null, 1), "weights: expected a pointer"),
        (
            lambda: lib.bitinfer_validate(-1, 70, 300, p, size, 1),
            "packing: expected 0 to 3, got -1",
        ),
        (lambda: lib.bitinfer_validate(2, 70, 300, null, size, 1), "packed: expected a pointer"),
        (
            lambda: lib.bitinfer_gemv(2, 3, 70, 300, p, size, a, out, 1),
            "family: expected 0 to 2, got 3",
        ),
        (
            lambda: lib.bitinfer_gemv(2, 0, 70, 300, p + 1, size, a, out, 1),
            "packed: expected alignment to 64 bytes",
        ),
        (
            lambda: lib.bitinfer_gemv(2, 0, 70, 300, p, size, null, out, 1),
            "activations: expected a pointer",
        ),
        (lambda: lib.bitinfer_gemv(2, 0, 70, 300, p, size, a, null, 1), "acc: expected a pointer"),
        (
            lambda: lib.bitinfer_gemv(2, 0, 70, 300, p, size, a, pointer(acc, 1), 1),
            "acc: expected alignment to 4",
        ),
        (
            lambda: lib.bitinfer_gemm(2, 0, 70, 300, p, size, a, out, 1),
            "m: expected 1 to 2^31 - 1, got 0",
        ),
        (lambda: lib.bitinfer_gemm(2, 3, 70, 300, p, size + 1, a, out, 1), "packed_size: expected"),
        (
            lambda: lib.bitinfer_gemm(2, 3, 70, 300, p, size, a, out, -2),
            "num_threads: expected 0 (all) or more",
        ),
    ]:
        assert call() == ARGUMENT, text
        assert text in last_error()
    assert lib.bitinfer_set_isa(null) == ARGUMENT
    assert lib.bitinfer_set_isa(b"mmx") == ISA
    assert "unknown row mmx; choose one of" in last_error()


def test_error_text_belongs_to_its_thread():
    assert lib.bitinfer_set_isa(b"mmx") == ISA
    seen = []
    other = threading.Thread(target=lambda: seen.append(last_error()))
    other.start()
    other.join()
    assert seen == [""]
    assert "mmx" in last_error()


def test_forbidden_environment_is_a_status_and_not_a_crash():
    code = """
import sys; sys.path.insert(0, sys.argv[1])
from test_c_api import *
acc, a, packed = np.zeros(1, np.int32), np.zeros(5, np.int8), aligned(64)
print(lib.bitinfer_active_isa() == ffi.NULL, last_error())
print(lib.bitinfer_gemv(2, 0, 1, 5, pointer(packed), 64, pointer(a), pointer(acc), 1))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env={**os.environ, "BITINFER_ISA": "mmx"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("True BITINFER_ISA: unknown row mmx; choose one of")
    assert int(second) == ISA


def at_page_end(size: int) -> NDArray[np.uint8]:
    """`size` writable bytes that end where a page begins that may not be touched."""
    libc = cffi.FFI()
    libc.cdef("int mprotect(void*, size_t, int);")
    pages = np.frombuffer(mmap.mmap(-1, 2 * mmap.PAGESIZE), np.uint8)
    guard = libc.cast("void*", pages.ctypes.data + mmap.PAGESIZE)
    assert libc.dlopen(None).mprotect(guard, mmap.PAGESIZE, 0) == 0
    return pages[mmap.PAGESIZE - size : mmap.PAGESIZE]


@pytest.mark.parametrize("packing", PACKINGS)
def test_activations_and_sums_are_not_left(matrix, codes, packing):
    matrix = held_by(packing, matrix)
    packed = pack(matrix, packing)
    expected = codes.astype(np.int32) @ matrix.T.astype(np.int32)
    activations = at_page_end(3 * 300).view(np.int8)
    activations[:] = codes.ravel()
    acc = at_page_end(3 * 70 * 4).view(np.int32)
    ok(
        lib.bitinfer_gemm(
            PACKINGS[packing],
            3,
            70,
            300,
            pointer(packed),
            packed.size,
            pointer(activations),
            pointer(acc),
            2,
        )
    )
    assert np.array_equal(acc.reshape(3, 70), expected)
    last = at_page_end(70 * 4).view(np.int32)
    ok(
        lib.bitinfer_gemv(
            PACKINGS[packing],
            0,
            70,
            300,
            pointer(packed),
            packed.size,
            pointer(activations, 600),
            pointer(last),
            2,
        )
    )
    assert np.array_equal(last, expected[2])
