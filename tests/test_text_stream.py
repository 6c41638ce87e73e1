"""``TextStream``: pieces, early close from this and other threads, errors, ``async for``."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator

import pytest
from scripted_engine import PROMPT, TOKENIZER, ScriptedCache, ScriptedEngine

from bitinfer.generate import Reply, StopRules, TextStream, generate_step
from bitinfer.sampling import greedy

IDS = TOKENIZER.encode("many words 👩‍👩‍👧 and more")


def stream(steps=None, release: Callable | None = None) -> TextStream:
    """A stream of ``steps``, or of a model that says ``IDS`` and ends."""
    if steps is None:
        engine = ScriptedEngine([*IDS, 2])
        steps = functools.partial(generate_step, engine, PROMPT, ScriptedCache(64), greedy, 0)
    rules = StopRules(max_tokens=50, eos_token_ids=frozenset({2}))
    return TextStream(steps, Reply(TOKENIZER, PROMPT, rules), release)


class Gate:
    """Steps that say when they begin to make the second token and wait there for a sign."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.made = 0

    def __call__(self, cancelled: Callable[[], bool]) -> Iterator[int]:
        for token_id in IDS:
            if self.made == 1:
                self.reached.set()
                assert self.open.wait(10)
            self.made += 1
            yield token_id


def test_pieces_joined_are_the_completion() -> None:
    one = stream()
    assert "".join(one) == one.completion.text == TOKENIZER.decode(IDS)
    assert one.progress == (len(IDS) + 1, 50)
    assert list(one) == []


def test_early_close_releases_once_with_what_was_generated() -> None:
    released = []
    one = stream(release=released.append)
    next(one)
    one.close()
    one.close()
    assert len(released) == 1
    assert tuple(released[0]) == one.completion.token_ids
    assert list(one) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_error_in_a_step_releases_and_comes_through(error) -> None:
    released = []

    def steps(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield IDS[0]
        raise error

    with pytest.raises(error):
        list(stream(steps, released.append))
    assert len(released) == 1


def test_deleted_stream_releases() -> None:
    released = []
    one = stream(release=released.append)
    next(one)
    del one
    assert len(released) == 1


def test_close_from_another_thread_lets_the_step_end_and_then_releases() -> None:
    gate, released = Gate(), []
    one = stream(gate, released.append)
    pieces: list[str] = []
    reader = threading.Thread(target=lambda: pieces.extend(one))
    reader.start()
    assert gate.reached.wait(10)
    one.close()  # returns at once
    assert not released
    gate.open.set()
    reader.join(10)
    assert len(released) == 1
    assert gate.made == 2
    assert one.completion.finish_reason == "length"


def test_async_pieces_are_those_of_the_plain_stream() -> None:
    async def collect() -> list[str]:
        return [piece async for piece in stream()]

    assert asyncio.run(collect()) == list(stream())


def test_event_loop_runs_while_a_step_does() -> None:
    gate = Gate()

    async def run() -> str:
        async def open_later() -> None:
            while not gate.reached.is_set():
                await asyncio.sleep(0)
            gate.open.set()  # only this task can, so a blocked loop would hang

        task = asyncio.create_task(open_later())
        pieces = [piece async for piece in stream(gate)]
        await task
        return "".join(pieces)

    assert asyncio.run(run()) == TOKENIZER.decode(IDS)


def test_cancelled_task_closes_the_stream_and_frees_it_when_the_step_is_over() -> None:
    gate, released = Gate(), []

    async def run() -> None:
        one = stream(gate, released.append)

        async def read() -> None:
            async with one:
                async for _ in one:
                    pass

        task = asyncio.create_task(read())
        while not gate.reached.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not released  # a step cannot be torn apart
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(released) == 1  # the block is left with the cache free
        assert gate.made == 2

    asyncio.run(run())


def test_task_cancelled_without_a_block_frees_the_stream_too() -> None:
    gate, released = Gate(), threading.Event()

    async def run() -> None:
        async def read() -> None:
            async for _ in stream(gate, lambda _: released.set()):
                pass

        task = asyncio.create_task(read())
        while not gate.reached.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()

    asyncio.run(run())
    assert released.wait(10)


def test_leaving_an_async_loop_early_frees_the_stream() -> None:
    released = []

    async def run() -> None:
        async with stream(release=released.append) as one:
            async for _ in one:
                break
        assert len(released) == 1

    asyncio.run(run())


def test_error_of_a_step_comes_through_async() -> None:
    def steps(cancelled: Callable[[], bool]) -> Iterator[int]:
        raise LookupError("mine")
        yield

    async def run() -> None:
        async for _ in stream(steps):
            pass

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(run())
