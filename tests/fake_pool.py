"""Blocks of a KV cache without a model: they remember which ids lie in them, and who keeps them."""

from __future__ import annotations

from collections.abc import Sequence

from bitinfer.engine import KV_BLOCK


class Block:
    def __init__(self, pool: FakePool) -> None:
        assert pool.used_blocks < pool.num_blocks, "more blocks than there are"
        pool.used_blocks += 1
        self.pool = pool
        self.ids: list[int] = []
        self.holders = 0


class Handle:
    """Keeps a block as long as it lives."""

    def __init__(self, block: Block) -> None:
        self.of = block
        block.holders += 1

    def __del__(self) -> None:
        self.of.holders -= 1
        if not self.of.holders:
            self.of.pool.used_blocks -= 1

    @property
    def shared(self) -> bool:
        return self.of.holders > 1


class FakeCache:
    def __init__(self, pool: FakePool, capacity: int, handles: Sequence[Handle], length: int):
        self._pool = pool
        self._handles = [Handle(handle.of) for handle in handles]
        self.capacity, self.length = capacity, length

    def block(self, index: int) -> Handle:
        return Handle(self._handles[index].of)

    def new_blocks(self, count: int) -> int:
        assert self.length + count <= self.capacity
        copies = count > 0 and self.length % KV_BLOCK > 0 and self._handles[-1].shared
        return -(-(self.length + count) // KV_BLOCK) - len(self._handles) + copies

    def append(self, token_ids: Sequence[int]) -> None:
        """Run the model: what others keep is copied before it is written."""
        for token_id in token_ids:
            at = self.length % KV_BLOCK
            if at == 0:
                self._handles.append(Handle(Block(self._pool)))
            elif self._handles[-1].shared:
                old = self._handles[-1].of
                self._handles[-1] = Handle(Block(self._pool))
                self._handles[-1].of.ids = old.ids[:]
            ids = self._handles[-1].of.ids
            ids[at:] = [token_id]
            self.length += 1

    @property
    def ids(self) -> list[int]:
        """What the model sees."""
        return [i for handle in self._handles for i in handle.of.ids][: self.length]


class FakePool:
    def __init__(self, num_blocks: int) -> None:
        self.num_blocks, self.used_blocks = num_blocks, 0

    def new_cache(self, capacity: int, blocks: Sequence[Handle], length: int) -> FakeCache:
        return FakeCache(self, capacity, blocks, length)
