"""Measure what a server makes of many requests at once, beside one alone and beside llama-server.

    python benchmarks/throughput.py --work DIR --record       # 1.5 GB in DIR
    python benchmarks/throughput.py --work DIR --llama-server build/bin/llama-server --record

The model has the shape of bitnet-b1.58-2B-4T and random weights. `batching`: tokens/s of decoding
through the server's scheduler, many replies at once and one alone, in turn. `http`: the same model
behind `bitinfer serve`, asked by as many clients at once; requests/s, and the time to the first
token (TTFT). With the program ``llama-server`` the two servers take turns, a round each; llama.cpp
holds the same weights as TQ2_0, its embedding as Q6_K.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_model import HERE, record_path, write_record
from random_model import SHAPES, write_random_model
from serving import Process, asked, bitinfer_server, other_server
from turns import Run, ratio, take_turns

from bitinfer.generate import Request
from bitinfer.machine import machine_facts
from bitinfer.model import Model
from bitinfer.serve.backend import Job, Stream
from bitinfer.serve.batching import BatchingBackend

FIRST_WORD = 256  # ids below are single bytes, of which not each is text
CONTEXT = 512
TARGET = 4.0


@dataclass(frozen=True)
class Sizes:
    """How much is asked for."""

    concurrent: int = 16
    prompt: int = 64
    generated: int = 32
    rounds: int = 5


def prompts(model: Model, sizes: Sizes, count: int, seed: int) -> list[list[int]]:
    """Texts that have nothing in common, as token ids."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(FIRST_WORD, model.setup.vocab_size - 2, size=(count, sizes.prompt))
    return [row.tolist() for row in ids]


def batching(model: Model, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Decoding of several replies by that of one, both through the scheduler."""
    slots = sizes.concurrent
    backend = BatchingBackend(model.engine, model.setup, slots=slots, queue_limit=slots)
    try:
        runs: dict[int, Run] = {
            count: partial(decode_rate, model, backend, sizes, count) for count in (1, slots)
        }
        turns = take_turns(runs, rounds)
    finally:
        backend.close()
    alone, together = turns.rates[1], turns.rates[slots]
    times = ratio(together, alone)
    return {
        "test": "batching",
        "concurrent": slots,
        "tokens_per_s": statistics.median(together),
        "tokens_per_s_runs": together,
        "tokens_per_s_alone": statistics.median(alone),
        "tokens_per_s_alone_runs": alone,
        "ratio": times.median,
        "ratio_min": times.least,
        "ratio_max": times.largest,
        "target": TARGET,
        "others_cpu_share": turns.others_cpu_share,
    }


def decode_rate(model: Model, backend: BatchingBackend, sizes: Sizes, count: int) -> float:
    """Tokens/s of so many replies together, from where the last of them has its first token."""
    setup = model.setup
    options = {"max_tokens": sizes.generated, "seed": 0}
    request = Request.read(options, model.sampling, sizes.generated, ())  # type: ignore[arg-type]

    async def read(stream: Stream, arrivals: list[float]) -> None:
        async for delta in stream:
            arrivals += [time.perf_counter()] * len(delta.token_ids)

    async def run() -> float:
        arrivals: list[list[float]] = [[] for _ in range(count)]
        streams = [
            backend.submit(Job(ids, request, setup.sampler(request, ids)))
            for ids in prompts(model, sizes, count, 0)
        ]
        await asyncio.gather(*map(read, streams, arrivals))
        begin = max(times[0] for times in arrivals)
        later = sorted(t for times in arrivals for t in times if t > begin)
        return len(later) / (later[-1] - begin)

    return asyncio.run(run())


async def ask_at_once(
    server: Process, asking: list[list[int]], sizes: Sizes, more: dict[str, Any]
) -> tuple[float, list[float]]:
    """Requests/s of streamed completions that are all asked for at once, and their TTFT."""

    async def ask(ids: list[int]) -> float:
        first_s = 0.0
        body = {"prompt": ids, "max_tokens": sizes.generated, "stream": True, "temperature": 0}
        async with asked(server.port, "POST", "/v1/completions", {**body, **more}) as answer:
            if answer.status != 200:
                raise SystemExit(f"port {server.port}: {answer.status}: {await answer.json()}")
            async for _ in answer.events():
                first_s = first_s or time.perf_counter() - began
        return first_s

    began = time.perf_counter()
    firsts = await asyncio.gather(*map(ask, asking))
    return len(asking) / (time.perf_counter() - began), list(firsts)


def http(
    model: Model, servers: dict[str, tuple[Process, dict[str, Any]]], sizes: Sizes, rounds: int
) -> list[dict[str, Any]]:
    """Records of servers that take turns, of many clients at once and of one."""
    rates: dict[tuple[str, int], list[float]] = {}
    firsts: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):  # the first one does not count
        for count in (1, sizes.concurrent):
            asking = prompts(model, sizes, count, 1 + number)  # new ones: no cache knows them
            for name, (server, more) in servers.items():
                rate, first = asyncio.run(ask_at_once(server, asking, sizes, more))
                if number:
                    rates.setdefault((name, count), []).append(rate)
                    firsts.setdefault((name, count), []).extend(first)
    return [
        {
            "test": "http",
            "program": name,
            "concurrent": count,
            "requests_per_s": statistics.median(found),
            "requests_per_s_runs": found,
            "tokens_per_s": statistics.median(found) * sizes.generated,
            "ttft_s_median": statistics.median(firsts[name, count]),
            "ttft_s_most": max(firsts[name, count]),
        }
        for (name, count), found in rates.items()
    ]


@contextmanager
def running(
    folder: Path, work: Path, llama_server: Path | None, sizes: Sizes, eos: int
) -> Iterator[dict[str, tuple[Process, dict[str, Any]]]]:
    """The servers, and what each wants to be told besides so that no reply ends early."""
    threads = os.cpu_count() or 1
    with ExitStack() as stack:
        ours = bitinfer_server(str(folder), "--no-history", "--slots", str(sizes.concurrent))
        found = {"bitinfer": (stack.enter_context(ours), {"logit_bias": {str(eos): -100}})}
        if llama_server is not None:
            from gguf_model import write_gguf

            path = work / "model-TQ2_0-words.gguf"
            if not path.exists():
                write_gguf(folder, path, "TQ2_0", "Q6_K", words=True)
            command = [str(llama_server), "-m", str(path), "-t", str(threads), "-tb", str(threads)]
            command += ["-np", str(sizes.concurrent), "-c", str(CONTEXT * sizes.concurrent)]
            theirs = stack.enter_context(other_server(command))
            found["llama-server"] = (theirs, {"ignore_eos": True})
        yield found


def measure(args: argparse.Namespace, sizes: Sizes, show: Callable[[str], None]) -> list[Any]:
    """All records."""
    folder = args.work.resolve() / "model-t5"
    if not folder.exists():
        write_random_model(SHAPES[args.shape], folder, packing="t5")
    with Model.load(folder, context_length=CONTEXT) as model:
        records = [batching(model, sizes, sizes.rounds)]
        show(f"batching: {records[0]['ratio']:.2f} times, want {TARGET:g}")
        eos = model.tokenizer.eos_token_ids[0]
        with running(folder, args.work, args.llama_server, sizes, eos) as servers:
            records += http(model, servers, sizes, args.http_rounds)
    for record in records[1:]:
        show(
            f"{record['program']}, {record['concurrent']} at once: "
            f"{record['requests_per_s']:.2f} requests/s, TTFT {record['ttft_s_median']:.2f} s"
        )
    lengths = {"prompt_tokens": sizes.prompt, "generated_tokens": sizes.generated}
    return [{**record, "shape": args.shape, **lengths} for record in records]


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path, help="folder for the models; kept")
    parser.add_argument("--shape", default="bitnet-2b-4t", choices=SHAPES)
    parser.add_argument("--llama-server", type=Path, help="the program, to compare with")
    parser.add_argument("-c", "--concurrent", type=int, default=Sizes.concurrent)
    parser.add_argument("-p", "--prompt-tokens", type=int, default=Sizes.prompt)
    parser.add_argument("-n", "--generated-tokens", type=int, default=Sizes.generated)
    parser.add_argument("-r", "--rounds", type=int, default=Sizes.rounds)
    parser.add_argument("--http-rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="add a record to records/throughput")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "throughput")
    sizes = Sizes(args.concurrent, args.prompt_tokens, args.generated_tokens, args.rounds)
    records = [{**record, **facts} for record in measure(args, sizes, print)]
    if args.record:
        print(write_record(records, "throughput"))


if __name__ == "__main__":
    main()
