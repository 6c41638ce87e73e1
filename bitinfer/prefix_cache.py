"""The one KV cache that a model keeps: a prompt that continues the last one runs only its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from bitinfer.engine import KV_BLOCK, Engine, KvCache
from bitinfer.session import load_text, save_text

_STRIDE = 256  # ids that are compared at once


@dataclass(frozen=True)
class Lease:
    """A cache in use by one generation.

    Attributes:
        cache: Holds a beginning of the prompt, never all of it.
        cached: How many tokens of it.
        release: To be called once at the end, with the generated ids.
    """

    cache: KvCache
    cached: int
    release: Callable[[Sequence[int]], None]


class PrefixCache:
    """Lends the kept cache to whoever comes first; meanwhile others get new ones. Thread-safe.

    Attributes:
        engine: Makes the caches.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()  # guards the three below
        self._cache: KvCache | None = None
        self._ids: list[int] = []  # what it holds
        self._busy = False

    def lend(self, prompt_ids: Sequence[int]) -> Lease:
        """A cache with as much of the prompt as the kept one holds, or an empty one."""
        with self._lock:
            if self._busy:
                return Lease(self.engine.new_cache(), 0, lambda _: None)
            if self._cache is None:
                self._cache = self.engine.new_cache()
            same = common_prefix(self._ids, prompt_ids[:-1])
            cache = self._cache
            cache.trim(same)
            del self._ids[same:]
            self._busy = True
        prompt = list(prompt_ids)

        def release(generated: Sequence[int]) -> None:
            """Note what the cache holds now; a stopped prefill may hold less."""
            with self._lock:
                self._ids = [*prompt, *generated][: cache.length]
                self._busy = False

        return Lease(cache, same, release)

    def save(self, path: Path) -> int:
        """Write the kept cache; returns how many tokens it holds. With none, nothing is written.

        Raises:
            OSError: it cannot be written.
            ValueError: it is lent.
        """
        with self._lock:
            self._check_free()
            if self._cache is None or not self._ids:
                return 0
            token_ids = list(self._ids)
            count = ceil(len(token_ids) / KV_BLOCK)
            blocks = [self._cache.block(number) for number in range(count)]
        save_text(path, self.engine, token_ids, blocks)
        return len(token_ids)

    def load(self, path: Path) -> int:
        """Keep what `save` wrote; returns how many tokens it holds.

        Raises:
            SessionError: there is no such file, it is damaged, or another model made it.
            ValueError: the kept cache is lent.
        """
        token_ids, cache = load_text(path, self.engine)
        with self._lock:
            self._check_free()
            self._ids, self._cache = token_ids, cache
        return len(token_ids)

    def _check_free(self) -> None:
        if self._busy:
            raise ValueError("session: a generation is running: wait until it has ended")


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids are the same."""
    most = min(len(a), len(b))
    start = 0
    while start < most and a[start : start + _STRIDE] == b[start : start + _STRIDE]:
        start += _STRIDE
    return next((n for n in range(start, most) if a[n] != b[n]), most)
