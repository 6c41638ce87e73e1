"""Weights in memory of the process's own, in huge pages; and when there is room for that.

A mapped file costs no memory of its own and is shared between processes, but lies in small pages,
and the hardware's prefetch ends with each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core
from bitinfer.formats.packed import ALIGNMENT, Tensor
from bitinfer.hardware import Memory, memory

WEIGHTS = ("auto", "mmap", "copy")


class HugeMemory:
    """A block in huge pages (where the system has them), handed out piece by piece.

    Args:
        sizes: Bytes of the arrays that it will take.

    Raises:
        MemoryError: the system has no more.
    """

    def __init__(self, sizes: list[int]) -> None:
        self._rest = _core.huge_bytes(max(1, sum(map(_aligned, sizes))))

    def copy(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of ``data`` in the block, made in parallel; it keeps the whole block."""
        piece = self._rest[: len(data)]
        self._rest = self._rest[_aligned(len(data)) :]
        _core.copy_bytes(data, piece)
        return piece


def mapped_bytes(weights: Mapping[str, Tensor], but: Collection[str] = ()) -> dict[str, int]:
    """Name to size of the tensors, without ``but``, that are mapped (read-only, that is)."""
    sizes = {name: len(data) for name, (data, _, _) in weights.items() if not data.flags.writeable}
    return {name: size for name, size in sizes.items() if name not in but}


def copy_mapped(
    weights: dict[str, Tensor],
    sizes: Mapping[str, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Copy tensors into huge pages.

    Args:
        weights: Name to tensor; those copied are replaced.
        sizes: Names of those to copy, and their bytes.
        progress: Called with bytes done and bytes in all.
    """
    block = HugeMemory(list(sizes.values()))
    done, total = 0, sum(sizes.values())
    for name, size in sizes.items():
        data, dtype, shape = weights[name]
        weights[name] = (block.copy(data), dtype, shape)
        done += size
        if progress is not None:
            progress(done, total)


def has_room(num_bytes: int, now: Memory | None = None) -> bool:
    """Whether a copy of ``num_bytes`` takes at most half of the memory that is left.

    Args:
        num_bytes: Of the copy.
        now: The machine's memory; for tests.
    """
    now = memory() if now is None else now
    free = now.total if now.available is None else now.available
    left = [size for size in (free, now.cgroup_limit) if size is not None]
    return 2 * num_bytes <= min(left, default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
