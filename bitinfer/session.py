"""Sessions: KV blocks in a file, so that a long prompt is not run again after a restart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from bitinfer.engine import KV_BLOCK, Engine, KvBlock, KvCache, KvPool
from bitinfer.errors import ConfigError
from bitinfer.formats.session_file import SessionFile, write_session

# Number in the list of the block before (-1: none), token ids, block.
SavedBlock = tuple[int, tuple[int, ...], KvBlock]


def save_blocks(path: Path, engine: Engine, pool: KvPool, blocks: Sequence[SavedBlock]) -> None:
    """Write blocks, none before its parent, to a file that `load_blocks` of this model takes.

    Raises:
        OSError: it cannot be written.
    """
    entries = [(parent, token_ids, block.bytes) for parent, token_ids, block in blocks]
    write_session(path, model_key(engine), pool.block_bytes, entries)


def load_blocks(path: Path, engine: Engine, pool: KvPool, most: int) -> Iterator[SavedBlock]:
    """The first blocks of a file, up to ``most``, in new blocks of ``pool``.

    Raises:
        SessionError: there is no such file, it is damaged, or another model made it.
    """
    for parent, token_ids, data in islice(_file(path, engine), most):
        yield parent, token_ids, pool.new_block(data)


def save_text(
    path: Path, engine: Engine, token_ids: Sequence[int], blocks: Sequence[KvBlock]
) -> None:
    """Write the blocks of one text, as `save_blocks` does.

    Raises:
        OSError: it cannot be written.
    """
    parts = [tuple(token_ids[i : i + KV_BLOCK]) for i in range(0, len(token_ids), KV_BLOCK)]
    chain = [(n - 1, ids, block) for n, (ids, block) in enumerate(zip(parts, blocks, strict=True))]
    save_blocks(path, engine, engine.new_pool(1), chain)


def load_text(path: Path, engine: Engine) -> tuple[list[int], KvCache]:
    """The text of a file that was used last, as far as the context holds it, in a new cache.

    Raises:
        SessionError: there is no such file, it is damaged, or another model made it.
    """
    cache = engine.new_cache()
    token_ids: list[int] = []
    for number, (parent, ids, data) in enumerate(_file(path, engine)):
        room = cache.capacity - cache.length
        if parent != number - 1 or room == 0:  # what follows belongs to other texts
            break
        token_ids += ids[:room]
        cache.append_block(data, min(len(ids), room))
    return token_ids, cache


def check_folder(path: Path) -> None:
    """Refuse a file that could not be written, before there is something to lose.

    Raises:
        ConfigError: its folder is not there.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--session {path}: expected a file in a folder that is there")


def model_key(engine: Engine) -> str:
    """What keys and values depend on, whatever form the weights lie in.

    It hashes the spec, and the block that the model computes for ids all over its vocabulary: they
    have the same bits on every machine.
    """
    length = min(KV_BLOCK, engine.spec["max_position_embeddings"])
    ids = np.linspace(0, engine.vocab_size - 1, length).astype(np.int32)
    cache = engine.new_cache(length)
    engine.forward([ids], [cache], logits="none")
    text = json.dumps([dict(engine.spec), engine.kv_cache], sort_keys=True)
    found = hashlib.sha256(text.encode())
    found.update(cache.block(0).bytes().data)
    return found.hexdigest()


def _file(path: Path, engine: Engine) -> SessionFile:
    block_bytes = engine.new_pool(1).block_bytes
    return SessionFile(path, model_key(engine), block_bytes, KV_BLOCK, engine.vocab_size)
