"""The batching backend: every job gets what it gets alone, whatever runs beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from checkpoints import LLAMA, TINY, tiny_checkpoint

import bitinfer
from bitinfer.engine import KV_BLOCK, Engine
from bitinfer.errors import BitinferError, QueueFullError
from bitinfer.generate import Completion, Request, Setup, generate_step
from bitinfer.sampling import SamplingParams
from bitinfer.serve.backend import Delta, Job, Stream
from bitinfer.serve.batching import BatchingBackend
from bitinfer.serve.scheduler import fewest_blocks
from bitinfer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(bitinfer.default_model(), vocab_size=4096, eos_token_ids=[2, 3])
STORY = TOKENIZER.encode("Once upon a time there was a little cat who lived by the sea. " * 8)
OPTIONS = (
    {},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 0.7, "top_k": 20, "seed": 2},
    {"temperature": 1.2, "min_p": 0.05, "seed": 9, "logprobs": 3},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.5},
    {"dry_multiplier": 0.8, "temperature": 0.9, "seed": 1},
    {"logit_bias": {10: 3.0}, "logprobs": 0},
    {"stop": ["."], "max_tokens": 60},
)


@pytest.fixture(scope="module")
def tales() -> Engine:
    return Engine.load(bitinfer.default_model(), num_threads=2, context_length=256)


def setup_of(engine: Engine) -> Setup:
    return Setup(TOKENIZER, engine.vocab_size)


def request(**options) -> Request:
    return Request.read({"max_tokens": 20, **options}, SamplingParams(), 20, [2, 3])


def alone(engine: Engine, prompt: list[int], wanted: Request) -> Completion:
    """What the loop of single sequences makes of it."""
    setup = setup_of(engine)
    sampler = setup.sampler(wanted, prompt)
    reply = setup.reply(wanted, prompt, sampler, 0)
    for token_id in generate_step(engine, prompt, engine.new_cache(), sampler, setup.vocab_size):
        reply.add(token_id)
        if reply.finish_reason is not None:
            return reply.completion
    reply.end("length")
    return reply.completion


def same(completion: Completion, other: Completion) -> bool:
    """Equal but for times and what was cached."""
    parts = ("text", "token_ids", "finish_reason", "logprobs")
    return all(getattr(completion, part) == getattr(other, part) for part in parts)


class Runner:
    """Jobs to a backend, and all that comes back."""

    def __init__(self, backend: BatchingBackend, setup: Setup) -> None:
        self.backend, self._setup = backend, setup

    def submit(self, prompt: list[int], wanted: Request, client: str = "") -> Stream:
        sampler = self._setup.sampler(wanted, prompt)
        return self.backend.submit(Job(prompt, wanted, sampler, client))

    async def complete(self, prompt: list[int], wanted: Request, client: str = "") -> Completion:
        deltas: list[Delta] = []
        stream = self.submit(prompt, wanted, client)
        async for delta in stream:
            deltas.append(delta)
        done = stream.completion
        assert "".join(delta.text for delta in deltas) == done.text
        assert tuple(i for delta in deltas for i in delta.token_ids) == done.token_ids
        records = tuple(record for delta in deltas for record in delta.logprobs)
        assert records == (done.logprobs or ())
        return done


@asynccontextmanager
async def running(engine: Engine, **options) -> AsyncIterator[Runner]:
    setup = setup_of(engine)
    backend = BatchingBackend(engine, setup, **options)
    try:
        yield Runner(backend, setup)
    finally:
        await asyncio.get_running_loop().run_in_executor(None, backend.close)


def jobs(rng: random.Random, vocab_size: int, longest: int) -> Iterator[tuple[list[int], Request]]:
    """Prompts that often begin like one another, with every kind of option."""
    story = [i % vocab_size for i in STORY]
    for options in OPTIONS * 2:
        tail = rng.choices(range(4, vocab_size), k=rng.randrange(1, 8))
        yield [*story[: rng.randrange(longest)], *tail], request(**options)


@pytest.mark.parametrize(
    ("slots", "step_tokens", "cache_blocks"), [(16, None, 100), (5, 16, 100), (6, 64, 5)]
)
def test_together_gives_what_each_gives_alone(tales, slots, step_tokens, cache_blocks) -> None:
    """With the embedded model: in full batches, small steps, and in too little memory."""

    async def run() -> None:
        wanted = list(jobs(random.Random(slots), 4096, 150))
        expected = [alone(tales, *job) for job in wanted]
        options = {"slots": slots, "step_tokens": step_tokens}
        async with running(tales, **options, cache_tokens=cache_blocks * KV_BLOCK) as runner:
            for _ in range(2):  # the second time, prompts are found in memory
                calls = (runner.complete(*job, client=f"c{i % 3}") for i, job in enumerate(wanted))
                done = await asyncio.gather(*calls)
                assert all(map(same, done, expected))
            counts = runner.backend.counts()
        assert (counts.waiting, counts.running) == (0, 0)
        assert sum(c.usage.cached_tokens for c in done) > 0
        assert (counts.preempted > 0) == (cache_blocks == 5)
        assert counts.cache_tokens_used <= counts.cache_tokens == cache_blocks * KV_BLOCK

    asyncio.run(run())


@pytest.mark.parametrize(("base", "kv_cache"), [(TINY, "int8"), (LLAMA, "f32"), (LLAMA, "f16")])
def test_together_gives_what_each_gives_alone_in_other_models(tmp_path, base, kv_cache) -> None:
    engine = Engine.load(tiny_checkpoint(tmp_path, base), kv_cache=kv_cache, num_threads=2)

    async def run() -> None:
        wanted = list(jobs(random.Random(1), 50, 100))  # a context holds 128
        blocks = fewest_blocks(128) + 2
        async with running(engine, slots=6, cache_tokens=blocks * KV_BLOCK) as runner:
            done = await asyncio.gather(*(runner.complete(*job) for job in wanted))
        for job, completion in zip(wanted, done, strict=True):
            assert same(completion, alone(engine, *job))

    asyncio.run(run())


def test_a_full_context_ends_a_reply_as_alone(tales) -> None:
    async def run() -> None:
        wanted = request(max_tokens=500, logit_bias={2: -100.0, 3: -100.0})
        async with running(tales) as runner:
            done = await runner.complete(STORY[:100], wanted)
        assert done.finish_reason == "length"
        assert same(done, alone(tales, STORY[:100], wanted))

    asyncio.run(run())


def test_a_given_up_job_ends_and_frees_its_place(tales) -> None:
    async def run() -> None:
        endless = request(max_tokens=200, logit_bias={2: -100.0, 3: -100.0})
        async with running(tales, slots=1) as runner:
            first, second = (runner.submit(STORY[:n], endless) for n in (5, 6))
            third = asyncio.ensure_future(runner.complete(STORY[:7], request()))
            got = [await first.__anext__()]
            first.cancel()
            second.cancel()  # in the queue
            got += [delta async for delta in first]
            assert first.completion.finish_reason == "length"
            assert len(first.completion.token_ids) == len(got) < 200
            assert [delta async for delta in second] == []
            assert second.completion.token_ids == ()
            assert same(await third, alone(tales, STORY[:7], request()))
            counts = runner.backend.counts()
            assert (counts.waiting, counts.running) == (0, 0)

    asyncio.run(run())


def test_a_job_that_fails_fails_alone(tales) -> None:
    def broken(token_ids, logits):
        raise ZeroDivisionError("a bug of somebody's processor")

    async def run() -> None:
        async with running(tales) as runner:
            good = [asyncio.ensure_future(runner.complete(STORY[:9], request())) for _ in range(3)]
            for wanted, error in (
                (request(logits_processor=broken), ZeroDivisionError),
                (request(logit_bias=dict.fromkeys(range(4096), -float("inf"))), ValueError),
            ):
                with pytest.raises(error):
                    await runner.complete(STORY[:20], wanted)
            expected = alone(tales, STORY[:9], request())
            assert all(same(done, expected) for done in await asyncio.gather(*good))

    asyncio.run(run())


def test_a_full_queue_says_when_to_come_again(tales) -> None:
    async def run() -> None:
        endless = request(max_tokens=200, logit_bias={2: -100.0, 3: -100.0})
        async with running(tales, slots=1, queue_limit=1) as runner:
            first = runner.submit(STORY[:5], endless)
            await first.__anext__()  # it runs
            second = runner.submit(STORY[:5], request())
            with pytest.raises(QueueFullError, match="1 requests are waiting") as caught:
                runner.submit(STORY[:5], request())
            assert 1 <= caught.value.retry_after_s <= 60
            first.cancel()
            assert [delta.token_ids async for delta in second]

    asyncio.run(run())


def test_closing_fails_what_runs_and_what_waits(tales) -> None:
    async def run() -> None:
        endless = request(max_tokens=200, logit_bias={2: -100.0, 3: -100.0})
        async with running(tales, slots=1) as runner:
            streams = [runner.submit(STORY[:5], endless) for _ in range(2)]
            await streams[0].__anext__()
        for stream in streams:
            with pytest.raises(BitinferError, match="shutting down"):
                async for _ in stream:
                    pass
        with pytest.raises(BitinferError, match="shutting down"):
            runner.submit(STORY[:5], endless)

    asyncio.run(run())


def test_by_default_there_is_memory_for_every_slot_or_at_least_for_one(tales) -> None:
    async def run() -> None:
        async with running(tales, slots=3) as runner:
            assert runner.backend.counts().cache_tokens == 3 * fewest_blocks(256) * KV_BLOCK

    asyncio.run(run())
    with pytest.raises(ValueError, match="cache blocks: expected at least 5 for a context of 256"):
        BatchingBackend(tales, setup_of(tales), cache_tokens=256)


def test_random_disconnects_leak_nothing(tales) -> None:
    rng = random.Random(3)

    async def visit(runner: Runner) -> None:
        stream = runner.submit(STORY[: rng.randrange(1, 90)], request(max_tokens=8))
        for _ in range(rng.randrange(6)):
            await anext(stream, None)
        stream.cancel()
        async for _ in stream:
            pass

    async def run() -> None:
        async with running(tales, slots=8, queue_limit=1000) as runner:
            await asyncio.gather(*(visit(runner) for _ in range(300)))
            done = await runner.complete(STORY[:90], request())
            assert same(done, alone(tales, STORY[:90], request()))
            counts = runner.backend.counts()
            kept = len(runner.backend._scheduler.prefixes)
            assert (counts.waiting, counts.running) == (0, 0)
            assert counts.cache_tokens_used == kept * KV_BLOCK

    asyncio.run(run())


def test_a_shared_beginning_is_computed_once() -> None:
    engine = Engine.load(bitinfer.default_model(), num_threads=2)  # a context of 1,024
    shared = (STORY * 8)[:1000]
    prompts = [[*shared, 300 + i, 400, 500, 600] for i in range(16)]

    async def run() -> None:
        wanted = request(max_tokens=5, logit_bias={2: -100.0, 3: -100.0})
        async with running(engine, slots=16) as runner:
            done = await asyncio.gather(*(runner.complete(ids, wanted) for ids in prompts))
            counts = runner.backend.counts()
        assert counts.run_tokens == 1000 + 16 * (4 + 4)  # of the tails, and of the replies
        assert sorted(c.usage.cached_tokens for c in done) == [0] + [1000] * 15
        assert same(done[7], alone(engine, prompts[7], wanted))

    asyncio.run(run())


def test_grammars_hold_in_a_batch(tales) -> None:
    pytest.importorskip("llguidance")

    async def run() -> None:
        kinds = [{"regex": "[a-z]{3,9}( [a-z]{2,5}){2}"}, {"json_schema": {"type": "boolean"}}, {}]
        wanted = [request(temperature=1.0, seed=i, **kinds[i % 3]) for i in range(9)]
        async with running(tales, slots=5) as runner:
            done = await asyncio.gather(*(runner.complete(STORY[:40], one) for one in wanted))
        for completion, one in zip(done, wanted, strict=True):
            assert same(completion, alone(tales, STORY[:40], one))
        assert {done[1].text, done[4].text} <= {"true", "false"}

    asyncio.run(run())
