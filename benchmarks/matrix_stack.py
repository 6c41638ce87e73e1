"""Packed random matrices to read from memory: so many that no cache holds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core, hardware
from bitinfer.resident import HugeMemory


def memory_bytes() -> int:
    """So many that no cache holds them."""
    largest = max((cache.bytes for cache in hardware.caches()), default=0)
    return max(256 << 20, 4 * largest)


def random_packed(packing: str, n: int, k: int) -> NDArray[np.uint8]:
    """A random matrix, packed; without zeros for b1, which holds none."""
    weights = np.random.default_rng(0).integers(-1, 2, (n, k), np.int8)
    return _core.pack(weights | 1 if packing == "b1" else weights, packing)


def matrices(packing: str, n: int, k: int, num_bytes: int) -> list[NDArray[np.uint8]]:
    """Copies of a packed random matrix, one behind the other, of at least ``num_bytes`` in all."""
    packed = random_packed(packing, n, k)
    count = max(1, -(-num_bytes // packed.size))
    memory = HugeMemory([packed.size] * count)
    return [memory.copy(packed) for _ in range(count)]


def random_codes(m: int, k: int) -> NDArray[np.int8]:
    """``m`` vectors of ``k`` activations: int8 (m, k)."""
    return np.random.default_rng(1).integers(-127, 128, (m, k), np.int8)
