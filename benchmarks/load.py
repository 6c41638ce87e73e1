"""Ask a server far more than it can do at once, and let clients go away at random.

    python benchmarks/load.py --record        # or `make load`

10,000 questions to the embedded model, 64 at a time, half of them streamed. Each answer must be
the one that the library gives alone. Meanwhile /health is asked and the server's memory is read.
Then 1,000 clients break off somewhere between their first byte and the last of the answer, after
which the server must hold no slot, no block of the KV cache and no file descriptor for them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bench_model import HERE, record_path, write_record
from serving import Process, asked, bitinfer_server, metric, request_bytes

from bitinfer.machine import machine_facts
from bitinfer.model import Model
from bitinfer.runtime import default_model

CHAT = "/v1/chat/completions"
DISTINCT = 200  # questions; each is asked many times, among ever other ones
MOST_TOKENS = 24
HEALTH_EVERY_S = 0.05
MEMORY_EVERY_S = 0.5
WARM_UP = 5  # one part in so many of the requests: all memory that is ever used is in use then
RSS_SHARE = 0.02  # by which the memory may change after it
SETTLED_S = 60.0  # in which a server must have noticed that its clients are gone
WORDS = ["the", "cat", "and", "a", "little", "dog", "ran", "to", "sea", "why", "is", "who", "happy"]


@dataclass(frozen=True)
class Question:
    """What is asked, and what the library says to it alone."""

    body: dict[str, Any]
    text: str
    finish_reason: str


@dataclass
class Tally:
    """What became of the questions.

    Attributes:
        answered: Answers that are those given alone.
        lost: What was said in place of an answer.
        crossed: Bodies of questions that got another answer.
        tokens: Generated in all.
        health_s: How long each GET /health took.
        health_failed: How many were not answered with 200.
        rss_bytes: Memory after the warm-up, now and then, and at the end.
    """

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    crossed: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    health_s: list[float] = field(default_factory=list)
    health_failed: int = 0
    rss_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Leaks:
    """What a server holds, without a client, that it did not hold before."""

    slots: int
    queued: int
    blocks: int
    file_descriptors: int


def questions(model: Model, count: int, seed: int = 0) -> list[Question]:
    """Different questions with many settings; those that begin alike share what is cached."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        text = " ".join([*WORDS[: rng.randrange(len(WORDS))], *rng.choices(WORDS, k=6)])
        messages = [{"role": "user", "content": text}]
        options = {
            "temperature": rng.choice([0, 0.7, 1.2]),
            "seed": number,
            "max_tokens": rng.randrange(1, MOST_TOKENS + 1),
        }
        done = model.chat(messages, **options)  # type: ignore[arg-type]
        body = {"messages": messages, **options, "user": f"client {number % 7}"}
        found.append(Question(body, done.text, done.finish_reason))
    return found


async def load(
    server: Process, asking: list[Question], requests: int, concurrent: int, seed: int = 0
) -> Tally:
    """Ask so many of the questions, in random order, so many at a time."""
    rng, tally = random.Random(seed), Tally()
    order = ((rng.choice(asking), rng.random() < 0.5) for _ in range(requests))
    watching = [
        asyncio.ensure_future(_watch_health(server, tally)),
        asyncio.ensure_future(_watch_memory(server, tally, requests // WARM_UP)),
    ]
    await asyncio.gather(*(_ask_all(server.port, order, tally) for _ in range(concurrent)))
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    tally.rss_bytes.append(server.rss_bytes)
    return tally


async def _ask_all(port: int, order: Iterator[tuple[Question, bool]], tally: Tally) -> None:
    for question, stream in order:
        try:
            text, finish_reason, tokens = await _answer(port, question.body, stream)
        except (OSError, EOFError, ValueError, LookupError) as problem:
            tally.lost.append(repr(problem))
            continue
        tally.tokens += tokens
        if (text, finish_reason) == (question.text, question.finish_reason):
            tally.answered += 1
        else:
            tally.crossed.append(question.body)


async def _answer(port: int, body: dict[str, Any], stream: bool) -> tuple[str, str, int]:
    """Text, why it ended, and how many tokens it has."""
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with asked(port, "POST", CHAT, {**body, **more}) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}: {await answer.json()}")
        if not stream:
            reply = await answer.json()
            (choice,) = reply["choices"]
            content = choice["message"]["content"]
            return content, choice["finish_reason"], reply["usage"]["completion_tokens"]
        text, finish_reason, tokens = "", "", 0
        async for chunk in answer.events():
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                finish_reason = choice["finish_reason"] or finish_reason
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        return text, finish_reason, tokens


async def _watch_health(server: Process, tally: Tally) -> None:
    while True:
        began = time.perf_counter()
        try:
            async with asked(server.port, "GET", "/health") as answer:
                tally.health_failed += answer.status != 200
        except (OSError, EOFError):
            tally.health_failed += 1
        tally.health_s.append(time.perf_counter() - began)
        await asyncio.sleep(HEALTH_EVERY_S)


async def _watch_memory(server: Process, tally: Tally, warm_up: int) -> None:
    while True:
        if tally.answered >= warm_up:
            tally.rss_bytes.append(server.rss_bytes)
        await asyncio.sleep(MEMORY_EVERY_S)


async def disconnect(
    server: Process, asking: list[Question], clients: int, concurrent: int, seed: int = 0
) -> Leaks:
    """Let so many clients break off, and look what the server still holds."""
    rng = random.Random(seed)
    await _settled(server, 0)
    before = server.open_files
    order = iter(rng.choices(asking, k=clients))

    async def visits() -> None:
        for question in order:
            await _break_off(server.port, question.body, rng)

    await asyncio.gather(*(visits() for _ in range(concurrent)))
    return await _settled(server, before)


async def _break_off(port: int, body: dict[str, Any], rng: random.Random) -> None:
    """Send a part of a request or all of it, read a part of the answer or nothing, and go."""
    body = {**body, "stream": rng.random() < 0.7, "max_tokens": rng.choice([2, 20, 300])}
    request = request_bytes("POST", CHAT, body)
    sent = rng.choice([len(request)] * 3 + [rng.randrange(len(request))])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request[:sent])
    if sent == len(request) and rng.random() < 0.7:
        await reader.read(rng.randrange(1, 2000))
    elif rng.random() < 0.5:
        await asyncio.sleep(rng.random() / 50)
    if rng.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()


async def _settled(server: Process, files: int) -> Leaks:
    """What is held without a client, beyond ``files``; waits until it is nothing, or long."""
    end_s = time.monotonic() + SETTLED_S
    while True:
        held, kept = [await metric(server.port, f"cache_tokens_{n}") for n in ("used", "kept")]
        slots, queued = [await metric(server.port, name) for name in ("running", "waiting")]
        leaks = Leaks(int(slots), int(queued), int(held - kept), server.open_files - files)
        if not files and leaks.slots == leaks.queued == 0:
            return leaks
        if leaks == Leaks(0, 0, 0, 0) or time.monotonic() > end_s:
            return leaks
        await asyncio.sleep(0.05)


async def measure(server: Process, model: Model, args: argparse.Namespace) -> dict[str, Any]:
    """Both parts, as a record."""
    asking = questions(model, DISTINCT)
    began = time.perf_counter()
    tally = await load(server, asking, args.requests, args.concurrent)
    seconds = time.perf_counter() - began
    leaks = await disconnect(server, asking, args.disconnects, args.concurrent)
    health_ms = sorted(1e3 * taken for taken in tally.health_s)
    rss = tally.rss_bytes
    return {
        "requests": args.requests,
        "concurrent": args.concurrent,
        "answered_as_alone": tally.answered,
        "lost": tally.lost,
        "crossed": tally.crossed,
        "seconds": round(seconds, 1),
        "requests_per_s": round(args.requests / seconds, 1),
        "tokens_per_s": round(tally.tokens / seconds),
        "health_asked": len(health_ms),
        "health_failed": tally.health_failed,
        "health_ms_median": round(statistics.median(health_ms), 1),
        "health_ms_p99": round(health_ms[int(0.99 * len(health_ms))], 1),
        "health_ms_most": round(health_ms[-1], 1),
        "rss_bytes_after_warm_up": rss[0] if rss else None,
        "rss_bytes_least": min(rss, default=None),
        "rss_bytes_most": max(rss, default=None),
        "rss_bytes_runs": rss,
        "disconnects": args.disconnects,
        "leaked": asdict(leaks),
    }


def kept(record: dict[str, Any]) -> dict[str, bool]:
    """Each promise, and whether it was kept."""
    rss = record["rss_bytes_after_warm_up"] or 1
    away = max(abs(found - rss) for found in record["rss_bytes_runs"] or [0])
    return {
        "none lost": not record["lost"] and record["answered_as_alone"] == record["requests"],
        "none crossed": not record["crossed"],
        "/health always answered": record["health_asked"] > 0 and not record["health_failed"],
        f"memory within {RSS_SHARE:.0%}": away <= RSS_SHARE * rss,
        "nothing leaked": not any(record["leaked"].values()),
    }


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--requests", type=int, default=10_000)
    parser.add_argument("-c", "--concurrent", type=int, default=64)
    parser.add_argument("-d", "--disconnects", type=int, default=1000)
    parser.add_argument("--record", action="store_true", help="add a record to records/load")
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "load")
    with (
        Model.load(default_model()) as model,
        bitinfer_server("tales-14m", "--no-history") as server,
    ):
        record = asyncio.run(measure(server, model, args))
    for name, value in record.items():
        print(f"{name}: {value if name != 'rss_bytes_runs' else len(value)}")
    promises = kept(record)
    for name, is_kept in promises.items():
        print(f"{name}: {'yes' if is_kept else 'NO'}")
    if args.record:
        print(write_record([{**record, "kept": promises, **facts}], "load"))
    if not all(promises.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
