"""``BatchingBackend``: one thread that runs all jobs together, a forward call a step.

What a step holds is the scheduler's part; what becomes of its logits that of the sampler and the
reply of each job, the same as elsewhere. So a job gets the tokens that it would get alone. Nothing
is drafted: other jobs fill the batch better than guesses do.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer import hardware
from bitinfer.engine import KV_BLOCK, Engine, KvCache, Rows
from bitinfer.errors import BitinferError, QueueFullError
from bitinfer.generate import Reply, Setup, most_candidates, take_token
from bitinfer.serve.backend import Counts, Delta, Job, Stream
from bitinfer.serve.limits import QUEUE_LIMIT, SLOTS
from bitinfer.serve.scheduler import Scheduler, Task, fewest_blocks
from bitinfer.session import load_blocks, save_blocks

_MEMORY_SHARE = 4  # by default, caches take at most one part in so many of the memory that is free
_MOST_RETRY_S = 60


class BatchingBackend:
    """Runs jobs in a thread of its own, from the first to `close`; a `Backend`."""

    def __init__(
        self,
        engine: Engine,
        setup: Setup,
        *,
        slots: int = SLOTS,
        queue_limit: int = QUEUE_LIMIT,
        step_tokens: int | None = None,
        cache_tokens: int | None = None,
    ) -> None:
        """Start the thread.

        Args:
            engine: Runs the model.
            setup: Makes the replies.
            slots: Most jobs that run at once.
            queue_limit: Most jobs that wait.
            step_tokens: Most ids of a step; None: ``engine.prefill_chunk``.
            cache_tokens: Positions of all KV caches together; None: a context for each slot, if
                that is at most a quarter of the free memory.

        Raises:
            ValueError: ``cache_tokens`` holds no whole context and a block, or one of the others
                is too small.
        """
        blocks = (
            _default_blocks(engine, slots) if cache_tokens is None else cache_tokens // KV_BLOCK
        )
        self._engine = engine
        self._setup = setup
        self._pool = engine.new_pool(max(blocks, 1))
        self._scheduler: Scheduler[_RunningJob] = Scheduler(
            self._pool,
            engine.context_length,
            slots=slots,
            step_tokens=engine.prefill_chunk if step_tokens is None else step_tokens,
            queue_limit=queue_limit,
        )
        self._changed = threading.Condition()  # guards the scheduler and the three below
        self._jobs: list[_RunningJob] = []
        self._closing = False
        self._job_s = 1.0  # what a job decodes for, on average
        self._thread = threading.Thread(target=self._work, name="bitinfer-batch", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Stream:
        """Queue a job; called in the event loop, returns at once.

        Raises:
            QueueFullError: too many are waiting; says when to come again.
            BitinferError: it is closed.
        """
        stream = Stream()
        reply = self._setup.reply(job.request, job.prompt_ids, job.sampler, 0)
        with self._changed:
            if self._closing:
                raise BitinferError("server: it is shutting down: ask another one")
            if self._scheduler.full:
                waiting = self._scheduler.waiting
                wait_s = ceil(self._job_s * (waiting + 1) / self._scheduler.slots)
                raise QueueFullError(
                    f"queue: {waiting} requests are waiting already: come again later",
                    min(wait_s, _MOST_RETRY_S),
                )
            running = _RunningJob(job, stream, reply)
            self._scheduler.submit(running)
            self._jobs.append(running)
            self._changed.notify()
        return stream

    def save(self, path: Path) -> None:
        """Write what memory keeps of texts to a file; while jobs run they wait.

        Raises:
            OSError: it cannot be written.
        """
        with self._changed:
            if blocks := self._scheduler.prefixes.blocks():
                save_blocks(path, self._engine, self._pool, blocks)

    def restore(self, path: Path) -> None:
        """Take what `save` of this model wrote, as much as there is room for.

        Raises:
            SessionError: there is no such file, it is damaged, or another model made it.
        """
        with self._changed:
            free = self._pool.num_blocks - self._pool.used_blocks
            blocks = list(load_blocks(path, self._engine, self._pool, free))
            self._scheduler.prefixes.restore(blocks)

    def counts(self) -> Counts:
        """How busy it is; from any thread."""
        with self._changed:
            totals = self._scheduler.totals
            return Counts(
                waiting=self._scheduler.waiting,
                running=self._scheduler.running,
                slots=self._scheduler.slots,
                cache_tokens=self._pool.num_blocks * KV_BLOCK,
                cache_tokens_used=self._pool.used_blocks * KV_BLOCK,
                cache_tokens_kept=self._scheduler.prefixes.evictable() * KV_BLOCK,
                cache_bytes=self._pool.used_blocks * self._pool.block_bytes,
                run_tokens=totals.run_tokens,
                cached_tokens=totals.cached_tokens,
                preempted=totals.preempted,
            )

    def takes_jobs(self) -> bool:
        """Whether the thread runs; from any thread."""
        return not self._closing

    def close(self) -> None:
        """End the running step, give up all jobs (their streams fail) and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        """The thread: step by step, until it is closed."""
        try:
            while plan := self._next_plan():
                self._step(plan)
        finally:
            with self._changed:
                self._closing = True
                for running in self._jobs:
                    running.stream.fail(BitinferError("server: it is shutting down"))

    def _next_plan(self) -> list[tuple[_RunningJob, int]]:
        """Waits until there is something to do; nothing once it is closed."""
        with self._changed:
            while not self._closing:
                for running in [r for r in self._jobs if r.stream.cancelled]:
                    self._end(running)
                    running.stream.finish(running.reply.completion)
                if self._jobs:
                    return self._scheduler.plan()
                self._changed.wait()
        return []

    def _step(self, plan: Sequence[tuple[_RunningJob, int]]) -> None:
        """Run the model once for all, and let those grow that have all their ids run."""
        growing = [running for running, count in plan if count == running.missing]
        try:
            rows = self._forward(plan, growing)
        except Exception as error:
            for running, _ in plan:
                self._fail(running, error)
            return
        for running, logits in zip(growing, rows, strict=True):
            try:
                self._grow(running, logits)
            except Exception as error:  # of the job's own grammar or settings
                self._fail(running, error)

    def _forward(
        self, plan: Sequence[tuple[_RunningJob, int]], growing: Sequence[_RunningJob]
    ) -> NDArray[np.float32]:
        """Logits ``(len(growing), vocab_size)``."""
        caches = [running.kv_cache for running, _ in plan]
        ids = [
            np.array(running.token_ids[cache.length : cache.length + count], np.int32)
            for (running, count), cache in zip(plan, caches, strict=True)
        ]
        rows: list[Rows] = ["last" if n == running.missing else "none" for running, n in plan]
        top_k = most_candidates([running.job.sampler for running in growing])
        return self._engine.forward(
            ids, caches, logits=rows, top_k=top_k, vocab_size=self._setup.vocab_size
        )

    def _grow(self, running: _RunningJob, logits: NDArray[np.float32]) -> None:
        sampler, reply = running.job.sampler, running.reply
        reply.cached_tokens = running.cached_tokens or 0
        token_id, text = take_token(
            logits, sampler, reply, running.kv_cache, self._setup.vocab_size
        )
        running.token_ids.append(token_id)
        running.stream.put(Delta(text, (token_id,), tuple(sampler.logprobs[-1:])))
        if reply.finish_reason is not None:
            completion = reply.completion
            with self._changed:
                self._end(running)
                self._job_s += (completion.usage.decode_s - self._job_s) / 8
            running.stream.finish(completion)

    def _fail(self, running: _RunningJob, error: Exception) -> None:
        with self._changed:
            self._end(running)
        running.stream.fail(error)

    def _end(self, running: _RunningJob) -> None:
        self._scheduler.end(running)
        self._jobs.remove(running)


class _RunningJob(Task):
    """A job from its queue to its end."""

    def __init__(self, job: Job, stream: Stream, reply: Reply) -> None:
        super().__init__(job.prompt_ids, job.client)
        self.job = job
        self.stream = stream
        self.reply = reply

    @property
    def kv_cache(self) -> KvCache:
        """The cache of a job that runs."""
        assert isinstance(self.cache, KvCache)
        return self.cache


def _default_blocks(engine: Engine, slots: int) -> int:
    """A context for each slot, if that leaves most of the free memory; at least one that works."""
    fewest = fewest_blocks(engine.context_length)
    memory = hardware.memory()
    limits = [n for n in (memory.available, memory.cgroup_limit) if n is not None]
    block_bytes = engine.bytes_per_token()["kv_per_position"] * KV_BLOCK
    affordable = min(limits, default=0) // _MEMORY_SHARE // block_bytes
    return max(fewest, min(slots * fewest, affordable))
