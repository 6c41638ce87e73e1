"""Pools of KV blocks: what caches share, what they copy, and what happens when it is used up."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import make_tiny_model

from bitinfer import _core

BLOCK = _core.KV_BLOCK
MODEL = make_tiny_model()
IDS = np.random.default_rng(7).integers(0, 101, 200).astype(np.int32)
NUM_BLOCKS = 8


@pytest.fixture(scope="module")
def decoder() -> _core.Decoder:
    return _core.Decoder(*MODEL, 2)


@pytest.fixture(params=["f16", "int8", "f32"])
def pool(request: pytest.FixtureRequest, decoder: _core.Decoder) -> _core.KvPool:
    return decoder.new_pool(NUM_BLOCKS, request.param)


def alone(decoder: _core.Decoder, ids: np.ndarray, dtype: str) -> bytes:
    """Logits after all of ``ids`` in a cache of their own."""
    return decoder.forward([ids], [decoder.new_cache(len(ids), dtype)], "last").tobytes()


def run(decoder: _core.Decoder, ids: np.ndarray, cache: _core.KvCache) -> bytes:
    return decoder.forward([ids], [cache], "last").tobytes()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128])
def test_a_shared_beginning_gives_the_same_bits(decoder, pool, length) -> None:
    first = pool.new_cache(256)
    run(decoder, IDS[:130], first)
    blocks = [first.block(i) for i in range(-(-length // BLOCK))]
    second = pool.new_cache(256, blocks, length)
    del blocks
    ids = np.concatenate([IDS[:length], IDS[::-1][:90]])
    assert run(decoder, ids[length:], second) == alone(decoder, ids, second.dtype)
    longer = np.concatenate([IDS[:130], IDS[:20]])
    assert run(decoder, longer[130:], first) == alone(decoder, longer, first.dtype)


@pytest.mark.parametrize("length", [1, 63, 64, 100, 128])
def test_bytes_of_blocks_make_the_same_cache(decoder, pool, length) -> None:
    first = pool.new_cache(256)
    run(decoder, IDS[:length], first)
    second = decoder.new_cache(256, first.dtype)
    for start in range(0, length, BLOCK):
        data = first.block(start // BLOCK).bytes()
        second.append_block(data, min(BLOCK, length - start))
    assert second.length == length
    assert run(decoder, IDS[length:], second) == alone(decoder, IDS, first.dtype)


def test_a_block_that_does_not_fit_is_refused(decoder, pool) -> None:
    data = np.zeros(pool.block_bytes, np.uint8)
    cache = pool.new_cache(100)
    for length in (0, -1, BLOCK + 1):
        with pytest.raises(ValueError, match="length: expected 1 to 64 positions, got"):
            cache.append_block(data, length)
    with pytest.raises(ValueError, match="block: expected"):
        cache.append_block(data[:-1], 1)
    cache.append_block(data, BLOCK)
    with pytest.raises(ValueError, match="expected 1 to 36 positions, got 37"):
        cache.append_block(data, 37)
    cache.append_block(data, 36)
    with pytest.raises(ValueError, match="expected a multiple of 64 positions, got 100"):
        cache.append_block(data, 1)
    assert (cache.length, pool.used_blocks) == (100, 2)


def test_full_blocks_are_held_once_and_freed_by_the_last(decoder, pool) -> None:
    first = pool.new_cache(256)
    run(decoder, IDS[:128], first)
    assert pool.used_blocks == 2
    handle = first.block(1)
    second = pool.new_cache(256, [first.block(0), handle], 128)
    run(decoder, IDS[:1], second)
    assert pool.used_blocks == 3
    del first
    assert (pool.used_blocks, handle.shared) == (3, True)
    del second
    assert (pool.used_blocks, handle.shared) == (1, False)
    del handle
    assert pool.used_blocks == 0


def test_copies_share_until_one_is_written(decoder, pool) -> None:
    first = pool.new_cache(256)
    run(decoder, IDS[:70], first)
    second = first.copy()
    assert pool.used_blocks == 2
    for cache, tail in ((second, IDS[100:105]), (first, IDS[50:60])):
        ids = np.concatenate([IDS[:70], tail])
        assert run(decoder, tail, cache) == alone(decoder, ids, pool.new_cache(1).dtype)
        assert pool.used_blocks == 3


def test_a_trimmed_cache_leaves_alone_what_others_hold(decoder, pool) -> None:
    first = pool.new_cache(256)
    run(decoder, IDS[:100], first)
    second = first.copy()
    first.trim(80)
    run(decoder, IDS[::-1][:48], first)
    assert run(decoder, IDS[100:110], second) == alone(decoder, IDS[:110], second.dtype)


def test_a_pool_that_is_used_up_changes_nothing(decoder, pool) -> None:
    caches = [pool.new_cache(512) for _ in range(3)]
    decoder.forward([IDS[:60], IDS[:128], IDS[:130]], caches, "none")
    used = pool.used_blocks
    assert used == 6
    batch = [IDS[60:70], IDS[128:130], IDS[:70]]  # one block each
    with pytest.raises(ValueError, match="all 8 blocks of 64 positions of the pool are in use"):
        decoder.forward(batch, caches, "last")
    assert [c.length for c in caches] == [60, 128, 130]
    assert pool.used_blocks == used
    rows = decoder.forward(batch[:2], caches[:2], "last")
    for row, length in zip(rows, (70, 130), strict=True):
        assert row.tobytes() == alone(decoder, IDS[:length], caches[0].dtype)
    assert pool.used_blocks == NUM_BLOCKS


def test_blocks_are_used_again_with_the_same_bits(decoder, pool) -> None:
    for start in range(5):
        cache = pool.new_cache(512)
        assert run(decoder, IDS[start:190], cache) == alone(decoder, IDS[start:190], cache.dtype)
        cache.trim(0)
        assert pool.used_blocks == 0


def test_rows_of_logits_can_differ_by_sequence(decoder) -> None:
    caches = [decoder.new_cache(64, "f16") for _ in range(3)]
    batch = [IDS[:5], IDS[:3], IDS[:7]]
    rows = decoder.forward(batch, caches, ["none", "all", "last"])
    every = decoder.forward([IDS[:7]], [decoder.new_cache(64, "f16")], "all")
    assert rows.tobytes() == every[[0, 1, 2, 6]].tobytes()
    with pytest.raises(ValueError, match="logits: expected one for each of the 3 sequences, got 1"):
        decoder.forward(batch, caches, ["last"])


def test_misuse_is_refused(decoder, pool) -> None:
    cache = pool.new_cache(256)
    run(decoder, IDS[:70], cache)
    handle = cache.block(1)
    with pytest.raises(ValueError, match="index: expected a block below 2, got 2"):
        cache.block(2)
    with pytest.raises(ValueError, match="length: expected at most 256 positions in 1 blocks"):
        pool.new_cache(256, [handle], 65)
    with pytest.raises(ValueError, match="blocks of this pool"):
        decoder.new_pool(2, "f16").new_cache(64, [handle], 3)
    with pytest.raises(ValueError, match="blocks of this pool"):
        pool.new_cache(64, [None], 3)
    with pytest.raises(ValueError, match="blocks: 0 of"):
        decoder.new_pool(0, "f16")
