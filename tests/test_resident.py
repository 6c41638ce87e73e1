"""Weights that are copied: the same bits, in memory of the process's own, in huge pages."""

import re
from pathlib import Path

import numpy as np
import pytest
from checkpoints import LLAMA, TINY, tiny_checkpoint

from bitinfer import _core, resident
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.hardware import Memory, huge_pages
from bitinfer.resident import HugeMemory, has_room

IDS = [1, 7, 30, 2, 49, 0]
MIB = 1 << 20


@pytest.fixture(scope="module", params=["int8", "source"])
def folder(tmp_path_factory, request):
    root = tmp_path_factory.mktemp("resident")
    return convert(tiny_checkpoint(root / "hf", TINY), root / "packed", head=request.param)


@pytest.mark.parametrize("head", ["int8", "source"])
@pytest.mark.parametrize("packing", ["auto", "i2", "t5"])
def test_copied_weights_give_the_same_bits(folder, head, packing):
    mapped = Engine.load(folder, head=head, weights="mmap")
    copied = Engine.load(folder, head=head, packing=packing, weights="copy")
    assert (mapped.weights, copied.weights) == ("mmap", "copy")
    assert np.array_equal(copied.logits(IDS), mapped.logits(IDS))


def test_a_copy_needs_the_file_no_more(tmp_path):
    folder = convert(tiny_checkpoint(tmp_path / "hf", LLAMA), tmp_path / "packed")
    read = {}
    engine = Engine.load(folder, weights="copy", progress=lambda done, total: read.update(d=done))
    before = engine.logits(IDS)
    file = folder / "bitinfer.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    with file.open("r+b") as damaged:  # what is mapped changes with the file
        damaged.seek(header)
        damaged.write(bytes(_core.packed_bytes(engine.packing, 64, 64)))
    assert np.array_equal(engine.logits(IDS), before)
    assert read["d"] > 0


def test_weights_that_must_be_packed_cannot_be_mapped(tmp_path):
    raw = tiny_checkpoint(tmp_path / "hf", TINY)
    with pytest.raises(ValueError, match=r"weights: expected auto or copy, as .*hf must be packed"):
        Engine.load(raw, weights="mmap")
    packed = convert(raw, tmp_path / "packed", packing="t3")
    with pytest.raises(ValueError, match=r"holds t3 and not i2, got 'mmap'"):
        Engine.load(packed, packing="i2", weights="mmap")
    assert Engine.load(packed, weights="mmap").packing == "t3"


def test_an_unknown_place_of_the_weights_is_refused(folder):
    with pytest.raises(ValueError, match="weights: expected auto, mmap, copy, got 'disk'"):
        Engine.load(folder, weights="disk")


def test_a_raw_checkpoint_can_be_copied(tmp_path):
    raw = tiny_checkpoint(tmp_path / "hf", TINY)
    copied = Engine.load(raw, weights="copy")
    assert np.array_equal(copied.logits(IDS), Engine.load(raw).logits(IDS))


def test_pieces_of_a_block_are_aligned_and_apart(rng):
    sizes = [1, 64, 100, 3 * MIB + 5]
    arrays = [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    block = HugeMemory(sizes)
    copies = [block.copy(array) for array in arrays]
    del block  # each piece keeps it
    for array, copy in zip(arrays, copies, strict=True):
        assert copy.ctypes.data % resident.ALIGNMENT == 0
        assert np.array_equal(copy, array)


def test_memory_that_the_system_does_not_have_is_a_memory_error():
    with pytest.raises(MemoryError):
        HugeMemory([1 << 60])


@pytest.mark.skipif(
    huge_pages() not in ("madvise", "always") or not Path("/proc/self/smaps").exists(),
    reason="this system gives no huge pages",
)
def test_a_block_lies_in_huge_pages():
    block = _core.huge_bytes(8 * MIB)
    block[:: 4 << 10] = 1
    begin = f"{block.ctypes.data:x}"
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)
    (area,) = [area for area in areas if area.startswith(begin)]
    assert int(re.search(r"AnonHugePages:\s+(\d+) kB", area)[1]) > 0


@pytest.mark.parametrize(
    ("available", "limit", "expected"),
    [
        (4000, None, True),
        (3999, None, False),
        (9000, 4000, True),
        (9000, 3999, False),
        (None, 3999, False),
        (None, None, True),
    ],
)
def test_a_copy_may_take_half_of_what_is_left(available, limit, expected):
    now = Memory(10_000, available, 0, 0, limit)
    assert has_room(2000, now) is expected
