"""Runs of an engine that can take turns with others (``turns.py``), each on any row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matrix_stack import random_codes, random_packed
from turns import Run

from bitinfer import _core, runtime
from bitinfer.bench import Roofline
from bitinfer.bench.bytes_read import decode_bytes
from bitinfer.bench.cases import Case, Runs, fill, random_ids, run
from bitinfer.energy import NoCounter
from bitinfer.engine import Engine


@contextmanager
def row(isa: str | None) -> Iterator[None]:
    """Run with this row of the dispatch table."""
    before = _core.active_isa()
    _core.set_isa(isa or before)
    try:
        yield
    finally:
        _core.set_isa(before)


def default_packing(isa: str) -> str:
    """The packing that is the fastest on a row by the records."""
    with row(isa):
        return runtime.auto_packing()


def generation(engine: Engine, threads: int, case: Case, depth: int = 0, isa: str = "") -> Run:
    """Tokens/s of a case after ``depth`` tokens, by the loop that users run."""
    kv = engine.new_cache(depth + case.positions + 1)

    def once() -> float:
        with row(isa or None):
            engine.num_threads = threads
            fill(engine, kv, depth)
            taken = Runs()
            run(engine, kv, case, NoCounter(""), taken)
        return case.tokens / taken.seconds[0]

    return once


def forwards(
    engine: Engine, threads: int, tokens: int, times: int, logits: str, isa: str = ""
) -> Run:
    """Forward steps/s of so many tokens each, all after the same one."""
    kv = engine.new_cache(tokens + 1)
    ids = random_ids(engine, tokens)

    def once() -> float:
        with row(isa or None):
            engine.num_threads = threads
            fill(engine, kv, 1)
            start = time.perf_counter()
            for _ in range(times):
                engine.forward([ids], [kv], logits=logits)  # type: ignore[arg-type]
                kv.trim(1)
            return times / (time.perf_counter() - start)

    return once


def allowed(engine: Engine, threads: int, case: Case) -> Run:
    """Tokens/s that memory allows: the best read of the round, by the bytes of one token.

    Not the best of all rounds: other tenants of a machine let its memory be twice as fast in one
    second as in another.
    """
    read = sum(decode_bytes(engine, 1, case.generated).values()) / case.generated
    line = Roofline(round(read), threads)
    return lambda: line.read() * 1e9 / read


def products(shape: tuple[int, int], packing: str, tokens: int, threads: int, isa: str) -> Run:
    """10^9 products/s of a random matrix, packed, times so many vectors of activations."""
    n, k = shape
    packed, codes = random_packed(packing, n, k), random_codes(tokens, k)
    sums = np.zeros((tokens, n), np.int32)  # no page of it is new to a run

    def once() -> float:
        start = time.perf_counter()
        _core.ternary_gemm(packed, packing, n, k, codes, isa, threads, sums)
        return n * k * tokens / (time.perf_counter() - start) / 1e9

    return once


def multiply_peak(isa: str, threads: int) -> float:
    """10^9 products/s of a row that reads no memory."""
    return _core.multiply_peak(isa, threads) / 1e9
