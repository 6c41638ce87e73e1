"""``HistoryThread``: the history, used in a thread of its own, so that no disk holds a reply up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bitinfer.history import History
from bitinfer.serve.problems import ApiError

Result = TypeVar("Result")


class HistoryThread:
    """Conversations, if they are kept."""

    def __init__(self, history: History | None) -> None:
        """Use ``history``, which stays the caller's."""
        self._history = history
        self._pool = ThreadPoolExecutor(1, "bitinfer-history")

    async def use(self, work: Callable[[History], Result]) -> Result:
        """What ``work`` returns.

        Raises:
            ApiError: nothing is kept.
            HistoryError: the file cannot be read or written, or what is asked for is not there.
        """
        history = self._history
        if history is None:
            raise ApiError(
                404,
                "history: conversations are not kept: start the server with --history, and see "
                "what it says",
                "no_history",
            )
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, history)

    def close(self) -> None:
        """Wait for what is being written."""
        self._pool.shutdown(cancel_futures=True)
