"""Saved KV blocks: taken up again by the same model alone, and refused when damaged."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from checkpoints import LLAMA, TINY, tiny_checkpoint
from test_batching import STORY, alone, request, running, same

from bitinfer.convert import convert
from bitinfer.engine import KV_BLOCK, Engine
from bitinfer.errors import SessionError
from bitinfer.generate import Completion
from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve.batching import BatchingBackend
from bitinfer.serve.scheduler import fewest_blocks
from bitinfer.session import load_blocks, model_key

PROMPTS = [[i % 50 for i in STORY[:length]] + [7] for length in (30, 64, 90, 100)]
PROMPTS.append([*PROMPTS[2][:80], 9, 9])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("session") / "model", TINY)


@pytest.fixture(scope="module")
def engine(folder) -> Engine:
    return Engine.load(folder, num_threads=1)


@pytest.fixture(scope="module")
def saved(engine, tmp_path_factory) -> bytes:
    """A session file of the prompts and what was said to them."""
    path = tmp_path_factory.mktemp("saved") / "session"

    async def run() -> None:
        async with running(engine) as runner:
            await asyncio.gather(*(runner.complete(ids, request()) for ids in PROMPTS))
        runner.backend.save(path)

    asyncio.run(run())
    return path.read_bytes()


def test_a_prompt_is_not_run_again_after_a_restart(engine, saved, tmp_path) -> None:
    path = tmp_path / "session"
    path.write_bytes(saved)

    async def run() -> None:
        async with running(engine) as runner:
            runner.backend.restore(path)
            done = [await runner.complete(ids, request()) for ids in PROMPTS]
        assert [c.usage.cached_tokens for c in done] == [len(ids) - 1 for ids in PROMPTS]
        for completion, ids in zip(done, PROMPTS, strict=True):
            assert same(completion, alone(engine, ids, request()))
        runner.backend.save(path)

    asyncio.run(run())
    assert len(path.read_bytes()) >= len(saved)


def test_a_smaller_memory_takes_what_fits(engine, saved, tmp_path) -> None:
    path = tmp_path / "session"
    path.write_bytes(saved)

    async def run() -> None:
        fewest = fewest_blocks(128)
        async with running(engine, slots=2, cache_tokens=fewest * KV_BLOCK) as runner:
            runner.backend.restore(path)
            assert runner.backend.counts().cache_tokens_used == fewest * KV_BLOCK
            done = [await runner.complete(ids, request()) for ids in PROMPTS]
        for completion, ids in zip(done, PROMPTS, strict=True):
            assert same(completion, alone(engine, ids, request()))

    asyncio.run(run())


def test_only_the_weights_and_the_dtype_of_the_cache_make_the_key(folder, engine, tmp_path) -> None:
    packed = Engine.load(convert(folder, tmp_path / "packed", packing="t5"), head="source")
    assert model_key(packed) == model_key(engine)
    others = [
        Engine.load(folder, kv_cache="int8"),
        Engine.load(tiny_checkpoint(tmp_path / "seed", TINY, seed=1)),
        Engine.load(tiny_checkpoint(tmp_path / "llama", LLAMA)),
    ]
    assert len({model_key(other) for other in [engine, *others]}) == 4


def changed_header(data: bytes, old: str, new: str) -> bytes:
    """The file with another text in its header."""
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].decode()
    assert old in header
    text = header.replace(old, new).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def place(data: bytes, tensor: str) -> int:
    """Where the bytes of a tensor begin."""
    size = int.from_bytes(data[:8], "little")
    return 8 + size + json.loads(data[8 : 8 + size])[tensor]["data_offsets"][0]


def overwritten(data: bytes, tensor: str, change: bytes, skip: int = 0) -> bytes:
    at = place(data, tensor) + skip
    return data[:at] + change + data[at + len(change) :]


BAD = {
    "a block's byte": (
        lambda d: overwritten(d, "blocks", b"\x55\xaa\x55"),
        "block 0: its digest differs: the file is damaged",
    ),
    "an id": (
        lambda d: overwritten(d, "token_ids", b"\x31"),
        "block 0: its digest differs: the file is damaged",
    ),
    "an id outside the vocabulary": (
        lambda d: overwritten(d, "token_ids", b"\xff\xff"),
        "token_ids: expected whole numbers from 0 to 49",
    ),
    "a parent behind": (
        lambda d: overwritten(d, "parents", b"\x01\x00\x00\x00"),
        "parents: expected each block after its parent",
    ),
    "no length": (
        lambda d: overwritten(d, "lengths", b"\x00"),
        "lengths: expected whole numbers from 1 to 64",
    ),
    "too few ids": (
        lambda d: overwritten(d, "lengths", b"\x01"),
        r"(lengths: expected 64 ids in each parent|token_ids: expected I32 \(\d+,\))",
    ),
    "cut": (lambda d: d[:-5], "expected"),
    "empty": (lambda d: b"", "expected"),
    "another file": (lambda d: changed_header(d, "bitinfer-session", "pt"), "format: expected"),
    "another version": (
        lambda d: changed_header(d, '"version": "1"', '"version": "2"'),
        "version: expected 1, got 2",
    ),
    "another tensor": (lambda d: changed_header(d, "digests", "digest"), "digests: expected U8"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(engine, saved, tmp_path, name) -> None:
    damage, message = BAD[name]
    path = tmp_path / "session"
    path.write_bytes(damage(saved))
    with pytest.raises(SessionError, match=message) as caught:
        list(load_blocks(path, engine, engine.new_pool(100), 100))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_another_model_made_is_refused(saved, tmp_path) -> None:
    path = tmp_path / "session"
    path.write_bytes(saved)
    other = Engine.load(tiny_checkpoint(tmp_path / "seed", TINY, seed=1))
    with pytest.raises(SessionError, match="model: another model, or another kv_cache, made it"):
        list(load_blocks(path, other, other.new_pool(100), 100))


QUESTION = [{"role": "user", "content": "What color is the sky? " * 20}]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Path, Completion]:
    """What a model wrote after it had answered, and the answer."""
    path = tmp_path_factory.mktemp("told") / "session"
    with Model.load(default_model()) as model:
        assert model.save_session(path) == 0
        assert not path.exists()
        done = model.chat(QUESTION, temperature=0, max_tokens=20)
        assert model.save_session(path) >= done.usage.prompt_tokens
    return path, done


def test_a_model_takes_up_where_another_process_left(told) -> None:
    path, before = told
    with Model.load(default_model(), packing="i2") as model:
        kept = model.load_session(path)
        assert kept >= before.usage.prompt_tokens
        done = model.chat(QUESTION, temperature=0, max_tokens=20)
        assert done.text == before.text
        assert done.usage.cached_tokens == before.usage.prompt_tokens - 1
        further = model.generate_n([*model.encode_chat(QUESTION), 5], 3, seed=1, max_tokens=9)
    with Model.load(default_model()) as fresh:
        ids = [*fresh.encode_chat(QUESTION), 5]
        alone = fresh.generate_n(ids, 3, seed=1, max_tokens=9)
    assert [c.text for c in further] == [c.text for c in alone]


def test_a_shorter_context_takes_up_as_much_as_it_holds(told) -> None:
    path, _ = told
    with Model.load(default_model(), context_length=100) as model:
        assert model.load_session(path) == 100
        ids = model.encode_chat(QUESTION)[:90]
        assert model.generate(ids, max_tokens=1).usage.cached_tokens == 89


def test_a_server_and_a_model_read_the_files_of_each_other(told, tmp_path) -> None:
    path, before = told
    with Model.load(default_model()) as model:

        async def run() -> None:
            backend = BatchingBackend(model.engine, model.setup, slots=2)
            try:
                backend.restore(path)
                backend.save(tmp_path / "of-server")
            finally:
                backend.close()

        asyncio.run(run())
        assert model.load_session(tmp_path / "of-server") >= before.usage.prompt_tokens
        done = model.chat(QUESTION, temperature=0, max_tokens=20)
    assert (done.text, done.usage.cached_tokens) == (before.text, before.usage.prompt_tokens - 1)


def test_a_file_that_cannot_be_used_leaves_the_model_as_it_is(told, saved, tmp_path) -> None:
    path, before = told
    bad = {
        "damaged": overwritten(path.read_bytes(), "blocks", b"\x55\xaa\x55", skip=1),
        "of another model": saved,
        "empty": b"",
    }
    with Model.load(default_model()) as model:
        model.chat(QUESTION, temperature=0, max_tokens=20)
        for name, data in bad.items():
            (tmp_path / name).write_bytes(data)
            with pytest.raises(SessionError, match=name if name == "damaged" else "expected|model"):
                model.load_session(tmp_path / name)
        with pytest.raises(SessionError, match="none"):
            model.load_session(tmp_path / "none")
        again = model.chat(QUESTION, temperature=0, max_tokens=20)
    assert (again.text, again.usage.cached_tokens) == (before.text, before.usage.prompt_tokens - 1)


def test_a_session_waits_for_the_end_of_a_generation(told, tmp_path) -> None:
    with Model.load(default_model()) as model, model.stream("The dog", max_tokens=9) as stream:
        next(stream)
        for use in (model.save_session, model.load_session):
            with pytest.raises(ValueError, match="a generation is running"):
                use(told[0])
        stream.close()
        assert model.save_session(tmp_path / "session") > 0
