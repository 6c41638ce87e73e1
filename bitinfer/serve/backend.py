"""What stands between HTTP and whatever generates: jobs go in, streams of deltas come out.

The server knows a `Backend` and no more: a scheduler that batches jobs is one. Nothing here speaks
HTTP or runs the model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bitinfer.generate import Completion, Request
from bitinfer.sampling import Sampler, TokenLogprob


@dataclass(frozen=True)
class Job:
    """One reply that is wanted; checked, so that whatever runs it meets no bad input.

    Attributes:
        prompt_ids: The prompt, which leaves room for one token of the context.
        request: Its options.
        sampler: Made for this job by ``Setup.sampler``, its grammar compiled.
        client: Who asks; the backend is fair between clients.
    """

    prompt_ids: Sequence[int]
    request: Request
    sampler: Sampler
    client: str = ""


@dataclass(frozen=True)
class Delta:
    """What a step added to a reply.

    Attributes:
        text: Text that became certain; "" while it waits.
        token_ids: The new ids, an end token included.
        logprobs: A record for each of them, if they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Counts:
    """How busy a backend is, for /metrics.

    Attributes:
        waiting: Jobs in the queue.
        running: Jobs in prefill or decode.
        slots: Most jobs that run at once.
        cache_tokens: Positions that the KV caches can hold in all.
        cache_tokens_used: How many of them are held, kept prefixes included.
        cache_tokens_kept: How many of those only may serve a later prompt, and give way to others.
        cache_bytes: Memory of the KV caches.
        run_tokens: Ids that went through the model since the start.
        cached_tokens: Ids of prompts that were in memory already.
        preempted: How often a job had to wait again, because memory ran out.
    """

    waiting: int
    running: int
    slots: int
    cache_tokens: int = 0
    cache_tokens_used: int = 0
    cache_tokens_kept: int = 0
    cache_bytes: int = 0
    run_tokens: int = 0
    cached_tokens: int = 0
    preempted: int = 0


class Stream(AsyncIterator[Delta]):
    """Deltas of one job, from the thread that generates to the event loop that reads.

    The generating side calls `put`, then once `finish` or `fail`, and asks `cancelled` before each
    step. The reading side iterates, and then has `completion`; `cancel` gives the job up. What is
    not read yet is kept: it is at most a context's worth of tokens.
    """

    def __init__(self) -> None:
        """Begin, in the event loop that reads."""
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Delta | Completion | Exception] = asyncio.Queue()
        self._cancelled = threading.Event()
        self._completion: Completion | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the rest."""
        return self._cancelled.is_set()

    def put(self, delta: Delta) -> None:
        """Pass a delta on; from any thread."""
        self._send(delta)

    def finish(self, completion: Completion) -> None:
        """The reply is whole (or was given up); from any thread."""
        self._send(completion)

    def fail(self, error: Exception) -> None:
        """The reader shall meet ``error``; from any thread."""
        self._send(error)

    def cancel(self) -> None:
        """Give the job up, wherever it is; from any thread, and any number of times."""
        self._cancelled.set()

    @property
    def completion(self) -> Completion:
        """The whole reply, once the deltas have ended."""
        assert self._completion is not None, "read to the end first"
        return self._completion

    async def __anext__(self) -> Delta:
        """The next delta.

        Raises:
            BitinferError: the job failed on its way, for example its grammar grew too complex.
        """
        item = await self._queue.get()
        if isinstance(item, Delta):
            return item
        if isinstance(item, Completion):
            self._completion = item
            raise StopAsyncIteration
        raise item

    def _send(self, item: Delta | Completion | Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self.cancel()


class Backend(Protocol):
    """Runs jobs."""

    def submit(self, job: Job) -> Stream:
        """Queue a job; called in the event loop, returns at once.

        Raises:
            QueueFullError: too many are waiting; says when to come again.
        """

    def counts(self) -> Counts:
        """How busy it is; from any thread."""

    def takes_jobs(self) -> bool:
        """Whether what runs jobs still does; from any thread."""

    def close(self) -> None:
        """End the running step, give up all jobs (their streams fail) and end the thread."""
