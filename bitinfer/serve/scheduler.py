"""``Scheduler``: which texts grow in the next step, and by how many tokens; pure state.

A task has token ids, of which its cache holds a beginning. A step runs some of those that are
missing: one (decode) or a chunk of a prompt (prefill). When none is missing the text has grown by
a token, which is missing then. So a task that lost its cache, because memory ran out, simply goes
on with a longer prompt, and since the model's bits do not depend on chunks or batches, with the
same tokens.

Memory: the youngest task gives way, first all that only the prefix tree keeps. The oldest never
does, and the pool holds a whole context and the copy of one block, so it always ends: no deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from bitinfer.engine import KV_BLOCK
from bitinfer.prefix_cache import common_prefix
from bitinfer.serve.fair_queue import FairQueue
from bitinfer.serve.prefix_tree import PrefixTree

_WORTH_WAITING = KV_BLOCK // 2  # ids that another prompt has to spare


class Cache(Protocol):
    """A KV cache; grows when a step runs."""

    @property
    def length(self) -> int:
        """Positions stored."""

    def block(self, index: int) -> Any:
        """A handle of the block of positions ``KV_BLOCK`` · index and following."""

    def new_blocks(self, count: int) -> int:
        """Blocks that it would take from the pool for ``count`` positions more."""


class Pool(Protocol):
    """Memory of the caches."""

    @property
    def num_blocks(self) -> int:
        """All that there are."""

    @property
    def used_blocks(self) -> int:
        """Those that a cache or a handle keeps."""

    def new_cache(self, capacity: int, blocks: Sequence[Any], length: int) -> Cache:
        """A cache that begins with ``length`` positions in ``blocks``."""


class Task:
    """A text that grows, from `Scheduler.submit` to `Scheduler.end`.

    Attributes:
        token_ids: Prompt and reply so far; whoever runs the steps appends to it.
        client: Whose it is.
        cache: None while it waits.
        cached_tokens: Of the prompt, what was in memory when it first started.
        number: Of its arrival; given by the scheduler.
    """

    def __init__(self, token_ids: Sequence[int], client: str = "") -> None:
        """A text of at least one id."""
        self.token_ids = list(token_ids)
        self.client = client
        self.cache: Cache | None = None
        self.cached_tokens: int | None = None
        self.number = -1

    @property
    def missing(self) -> int:
        """How many ids its cache lacks."""
        return len(self.token_ids) - (self.cache.length if self.cache else 0)


T = TypeVar("T", bound=Task)


@dataclass
class Totals:
    """What was done so far.

    Attributes:
        run_tokens: Ids that went through the model.
        cached_tokens: Ids of starting tasks that were in memory.
        preempted: How often a task had to give way.
    """

    run_tokens: int = 0
    cached_tokens: int = 0
    preempted: int = 0


class Scheduler(Generic[T]):
    """Plans steps for tasks; not for several threads at once.

    Attributes:
        slots: Most tasks that run at once.
        totals: What was done so far.
        prefixes: What memory keeps of texts.
    """

    def __init__(
        self, pool: Pool, context_length: int, *, slots: int, step_tokens: int, queue_limit: int
    ) -> None:
        """Begin without tasks.

        Args:
            pool: Memory; must hold ``fewest_blocks(context_length)``.
            context_length: Capacity of each cache.
            slots: Most tasks that run at once.
            step_tokens: Most ids of a step; more than ``slots``, so that prompts get on.
            queue_limit: Most tasks that wait, besides those that lost their memory.

        Raises:
            ValueError: one of them is too small.
        """
        if pool.num_blocks < (fewest := fewest_blocks(context_length)):
            raise ValueError(
                f"cache blocks: expected at least {fewest} for a context of {context_length}, got"
                f" {pool.num_blocks}: give more memory, or lower context_length"
            )
        if slots < 1 or queue_limit < 1:
            raise ValueError(f"slots, queue: expected 1 or more, got {slots}, {queue_limit}")
        if step_tokens <= slots:
            raise ValueError(f"step_tokens: expected more than {slots} slots, got {step_tokens}")
        self.slots = slots
        self.totals = Totals()
        self._pool = pool
        self._context_length = context_length
        self._step_tokens = step_tokens
        self._queue_limit = queue_limit
        self.prefixes: PrefixTree[Any] = PrefixTree()
        self._queue: FairQueue[T] = FairQueue()
        self._running: list[T] = []  # oldest first
        self._planned: dict[T, int] = {}
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """Tasks in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Tasks with a cache."""
        return len(self._running)

    @property
    def full(self) -> bool:
        """Whether no task may be submitted."""
        return self.waiting >= self._queue_limit

    def submit(self, task: T) -> None:
        """Queue a task of at most ``context_length`` ids; the queue must not be full."""
        assert not self.full
        task.number = next(self._numbers)
        self._queue.enter(task)

    def end(self, task: T) -> None:
        """The task is over or given up, wherever it is; what its cache holds may serve others."""
        if task.cache is None:
            self._queue.take(task)
        else:
            self._stop(task)
        self._queue.leave(task)

    def plan(self) -> list[tuple[T, int]]:
        """The next step: tasks, and how many of the missing ids of each are to be run.

        There is memory for them. Empty only if there are no tasks. Before the next call each
        cache has grown by as many, and each task that misses no more has got a new id or ended.
        """
        for task, number in self._planned.items():
            if number > 1 and task.cache is not None:  # so that others find the prompt already
                end = task.cache.length
                self._keep(task, end if task.missing == 1 else end // KV_BLOCK * KV_BLOCK)
        plan: dict[T, int] = {}
        while not plan and (self._running or self.waiting):
            plan = self._shared_budget()
            if not self._has_room(plan):
                self._preempt(self._running[-1])
                plan = {}
        for task, number in plan.items():
            self._queue.charge(task, number)
            self.totals.run_tokens += number
        self._planned = plan
        return list(plan.items())

    def _shared_budget(self) -> dict[T, int]:
        """A token for each that decodes, the rest for prompts, of who got least first.

        A task that waits starts when it is its turn, if there is a slot and memory for it.
        """
        plan = {task: 1 for task in self._running if task.missing == 1}
        budget = self._step_tokens - len(plan)
        may_start = True
        while budget > 0:
            ready = [task for task in self._running if task not in plan]
            if may_start and len(self._running) < self.slots:
                ready += [t for t in self._queue.heads() if not self._awaits_prefix(t)]
            if not ready:
                break
            task = min(ready, key=self._queue.rank)
            if task.cache is None and not self._start(task):
                may_start = False  # nor anybody else before it
                continue
            plan[task] = min(task.missing, budget)
            budget -= plan[task]
        return plan

    def _awaits_prefix(self, task: T) -> bool:
        """Whether a prompt that is being run will soon spare it many ids."""
        for other in self._running:
            if other.cache is not None and other.missing > 1:
                same = common_prefix(task.token_ids[:-1], other.token_ids)
                kept = other.cache.length // KV_BLOCK * KV_BLOCK
                if same - kept >= _WORTH_WAITING:
                    return True
        return False

    def _start(self, task: T) -> bool:
        """Give the task a cache, if memory for all its ids and one more is not promised yet."""
        blocks, length = self.prefixes.match(task.token_ids[:-1])
        cache = self._pool.new_cache(self._context_length, blocks, length)
        wanted = self._unrun_blocks(task, cache)
        for other in self._running:
            assert other.cache is not None
            wanted += self._unrun_blocks(other, other.cache)
        if wanted > self._free() and wanted > self._free() + self.prefixes.evictable():
            return False
        self._queue.take(task)
        task.cache = cache
        if task.cached_tokens is None:
            task.cached_tokens = length
        self.totals.cached_tokens += length
        self._running.append(task)
        self._running.sort(key=lambda t: t.number)
        return True

    def _has_room(self, plan: dict[T, int]) -> bool:
        """Whether the pool has the blocks of a step, perhaps once the prefix tree gave some up."""
        wanted = sum(t.cache.new_blocks(n) for t, n in plan.items() if t.cache is not None)
        short = wanted - self._free()
        return short <= 0 or self.prefixes.evict(short) == short

    def _preempt(self, task: T) -> None:
        """Let the task wait again."""
        assert len(self._running) > 1, "the pool holds a whole context"
        self._stop(task)
        self._queue.put_back(task)
        self.totals.preempted += 1

    def _stop(self, task: T) -> None:
        """Take the task's cache away; the prefix tree keeps what is in it."""
        assert task.cache is not None
        self._keep(task, task.cache.length)
        self._running.remove(task)
        task.cache = None

    def _keep(self, task: T, length: int) -> None:
        assert task.cache is not None
        self.prefixes.insert(task.token_ids[:length], task.cache.block)

    def _unrun_blocks(self, task: T, cache: Cache) -> int:
        """Blocks for the ids that are not in ``cache`` and, if it fits, one more."""
        end = min(len(task.token_ids) + 1, self._context_length)
        return cache.new_blocks(end - cache.length)

    def _free(self) -> int:
        return self._pool.num_blocks - self._pool.used_blocks


def fewest_blocks(context_length: int) -> int:
    """Blocks without which a task could fail to end: a context, and the copy of a shared block."""
    return -(-context_length // KV_BLOCK) + 1
