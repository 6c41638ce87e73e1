"""``TextStream``: a running generation as an iterator of text, also for ``async for``."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType

from bitinfer.generate.reply import Completion, Reply


class TextStream(Iterator[str], AsyncIterator[str]):
    """Pieces of generated text; iterate over it, then read ``completion``.

    ``close`` (or leaving a ``with`` block, or deleting it) stops early and frees the cache. It may
    be called from any thread: a step that runs elsewhere ends first, at the latest after one chunk
    of the prompt. ``async for`` runs each step in a thread, so that the event loop stays free; a
    task that is cancelled closes the stream.
    """

    def __init__(
        self,
        steps: Callable[[Callable[[], bool]], Iterator[int]],
        reply: Reply,
        release: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """Make text of ``steps``.

        Args:
            steps: Makes the iterator of generated ids; its argument tells whether to give up.
            reply: Takes the ids.
            release: Called once at the end with the generated ids.
        """
        self._lock = threading.Lock()  # held while a step runs
        self._closing = threading.Event()
        self._reply = reply
        self._release = release
        self._steps = steps(self._closing.is_set)

    def __next__(self) -> str:
        try:
            with self._lock:
                piece = self._next_piece()
        except BaseException:
            self._closing.set()
            raise
        finally:
            if self._closing.is_set():  # by an error, or by another thread while the step ran
                self.close()
        if not piece:
            raise StopIteration
        return piece

    def _next_piece(self) -> str:
        """Run steps until there is text; "" at the end."""
        piece = ""
        while not piece and self._reply.finish_reason is None and not self._closing.is_set():
            token_id = next(self._steps, None)
            if token_id is not None:
                piece = self._reply.add(token_id)
            elif not self._closing.is_set():
                piece = self._reply.end("length")  # the cache is full
        if self._reply.finish_reason is not None:
            self._closing.set()
        return piece

    def close(self) -> None:
        """Stop now; what was generated stays in ``completion``. May be called again."""
        self._closing.set()
        if self._lock.acquire(blocking=False):  # else who holds it closes when the step is over
            try:
                self._free()
            finally:
                self._lock.release()

    def _free(self) -> None:
        self._reply.finish_reason = self._reply.finish_reason or "length"
        release, self._release = self._release, None
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
        if release is not None:
            release(self._reply.token_ids)

    @property
    def completion(self) -> Completion:
        """What was generated so far, all of it after the last piece."""
        return self._reply.completion

    @property
    def progress(self) -> tuple[int, int]:
        """Tokens generated so far, and the most there will be."""
        return len(self._reply.token_ids), self._reply.max_tokens

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> str:
        import asyncio  # it takes as long to import as all of bitinfer's own

        loop = asyncio.get_running_loop()
        try:
            piece = await loop.run_in_executor(None, next, self, "")
        except asyncio.CancelledError:
            self.close()
            raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Like `close`, but also waits for a step that still runs."""

        def wait() -> None:
            with self._lock:
                self._free()

        self._closing.set()
        import asyncio

        await asyncio.get_running_loop().run_in_executor(None, wait)

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_release", None) is not None:
            self.close()
