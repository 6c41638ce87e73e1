"""The one timing loop, and the form of a benchmark record. It measures; ``cli/bench.py`` shows.

Two phases are timed through the loop that users run (``generate.generate_step``): *prefill*, a
prompt up to and with its first generated token, and *decode*, further tokens after a prompt of one.
Between the repeats the memory roofline is read, with the same threads, over a buffer of as many
bytes as one decoded token needs. ``benchmarks/README.md`` defines every field of a record.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer import runtime
from bitinfer.engine import Engine
from bitinfer.generate import generate_step
from bitinfer.machine import machine_facts
from bitinfer.sampling import greedy

ROOFLINE_STREAMS = (1, 2, 4, 8)  # far-apart streams per thread that the roofline tries
_ROOFLINE_READ_BYTES = 64 << 20  # a smaller buffer is read several times in a row
_BUFFER_UNIT_BYTES = 64 * max(ROOFLINE_STREAMS)
_SHAPE_KEYS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings"),
)


@dataclass(frozen=True)
class Record:
    """One phase of one model on one machine.

    Attributes:
        phase: ``prefill`` or ``decode``.
        tokens: Tokens of this phase in each repeat.
        tokens_per_s: Median of the repeats; beside it the slowest and the fastest.
        bytes_per_token: Bytes of weights and KV cache that must be read per token.
        gb_per_s: ``bytes_per_token * tokens_per_s / 1e9``.
        roofline_gb_per_s: The fastest read of one decoded token's bytes in the same run.
        kernel: Of this phase's ternary matrices.
        machine: ``machine.machine_facts``.
    """

    phase: str
    tokens: int
    threads: int
    tokens_per_s: float
    tokens_per_s_min: float
    tokens_per_s_max: float
    bytes_per_token: int
    gb_per_s: float
    roofline_gb_per_s: float
    isa: str
    packing: str
    kernel: str
    head: str
    kv_cache: str
    model: str
    shape: dict[str, Any]
    warmup: int
    repeats: int
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object: the machine's facts stand beside the rest."""
        fields: dict[str, Any] = asdict(self)
        machine: dict[str, Any] = fields.pop("machine")
        return fields | machine


class Roofline:
    """The fastest read of some bytes of memory that this machine has shown.

    Args:
        num_bytes: Size of the buffer, rounded up to whole streams.
        threads: Threads that read it.
    """

    def __init__(self, num_bytes: int, threads: int) -> None:
        self._threads = threads
        size = -(-num_bytes // _BUFFER_UNIT_BYTES) * _BUFFER_UNIT_BYTES
        self._buffer = np.ones(size, np.uint8)  # written, so that every page is its own
        self._best_s = float("inf")

    def read(self) -> None:
        """Read the buffer with each number of streams; the best time so far is kept."""
        times = max(1, _ROOFLINE_READ_BYTES // self._buffer.size)
        for streams in ROOFLINE_STREAMS:
            seconds = runtime.read_bandwidth(self._buffer, self._threads, streams, times)
            self._best_s = min(self._best_s, *seconds)

    @property
    def gb_per_s(self) -> float:
        """Best rate so far, 10^9 bytes a second; 0 before the first read."""
        return float(self._buffer.size / self._best_s / 1e9)


def bench(
    engine: Engine,
    *,
    prompt_tokens: int = 512,
    generated_tokens: int = 128,
    repeats: int = 5,
    warmup: int = 1,
    checkout: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """Measure a loaded model with its own thread count.

    Args:
        engine: The model.
        prompt_tokens: Length of the prefill; 0 leaves the phase out.
        generated_tokens: Length of the decode; 0 leaves the phase out.
        repeats: Measured runs of each phase.
        warmup: Runs before them that are not counted.
        checkout: A folder of bitinfer's git checkout, to name the commit.
        progress: Called with the runs done and the runs in all.

    Returns:
        A record for each phase, prefill first.

    Raises:
        ValueError: no phase is left, a count is out of range, or the context is too short.
    """
    lengths = {"prefill": prompt_tokens, "decode": generated_tokens}
    _check_counts(engine, lengths, repeats, warmup)
    phases = {name: length for name, length in lengths.items() if length}
    roofline = Roofline(_decode_bytes(engine, max(1, generated_tokens)), engine.num_threads)
    seconds: dict[str, list[float]] = {name: [] for name in phases}
    for run in range(warmup + repeats):
        roofline.read()
        for name, length in phases.items():
            taken = _prefill_s(engine, length) if name == "prefill" else _decode_s(engine, length)
            if run >= warmup:
                seconds[name].append(taken)
        if progress is not None:
            progress(run + 1, warmup + repeats)
    facts = machine_facts(checkout)
    return [
        _record(engine, name, phases[name], taken, roofline.gb_per_s, warmup, facts)
        for name, taken in seconds.items()
    ]


def _check_counts(engine: Engine, lengths: dict[str, int], repeats: int, warmup: int) -> None:
    if not any(lengths.values()):
        raise ValueError("tokens: expected a prompt or generated tokens to measure, got 0 of both")
    longest = engine.context_length - 1
    for name, length in lengths.items():
        if not 0 <= length <= longest:
            raise ValueError(
                f"{name}: expected 0 to {longest} tokens (the context less one), got {length}"
            )
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats, warmup: expected at least 1 and 0, got {repeats} and {warmup}")


def _prefill_s(engine: Engine, tokens: int) -> float:
    """Seconds from a prompt to its first generated token."""
    steps = _steps(engine, tokens, tokens + 1)
    with closing(steps):  # type: ignore[type-var]  # a generator
        start = time.perf_counter()
        next(steps)
        return time.perf_counter() - start


def _decode_s(engine: Engine, tokens: int) -> float:
    """Seconds of ``tokens`` generated tokens, the first after the prompt not counted."""
    steps = _steps(engine, 1, tokens + 1)
    with closing(steps):  # type: ignore[type-var]  # a generator
        next(steps)
        start = time.perf_counter()
        for _ in range(tokens):
            next(steps)
        return time.perf_counter() - start


def _steps(engine: Engine, prompt_tokens: int, capacity: int) -> Iterator[int]:
    prompt = np.random.default_rng(0).integers(engine.vocab_size, size=prompt_tokens)
    return generate_step(engine, prompt.tolist(), engine.new_cache(capacity), greedy)


def _decode_bytes(engine: Engine, tokens: int) -> int:
    """Bytes that one decoded token reads on average over contexts of 1 to ``tokens`` + 1."""
    read = engine.bytes_per_token()
    context = 1 + (tokens + 1) / 2
    return round(read["ternary"] + read["head"] + read["float"] + read["kv_per_position"] * context)


def _prefill_bytes(engine: Engine, tokens: int) -> int:
    """Bytes per token of a prefill: matrices and norms once a chunk, the head once."""
    read = engine.bytes_per_token()
    chunk = engine.prefill_chunk
    ends = [min(end, tokens) for end in range(chunk, tokens + chunk, chunk)]
    weights = len(ends) * (read["ternary"] + read["float"]) + read["head"]
    return round((weights + sum(ends) * read["kv_per_position"]) / tokens)


def _record(
    engine: Engine,
    phase: str,
    tokens: int,
    seconds: list[float],
    roofline: float,
    warmup: int,
    facts: dict[str, Any],
) -> Record:
    packing = engine.packing
    rates = [tokens / taken for taken in seconds]
    median = statistics.median(rates)
    if phase == "decode":
        num_bytes = _decode_bytes(engine, tokens)
        kernel = f"ternary_gemv_{runtime.gemv_family(packing)}_i8_{packing}_i32"
    else:
        num_bytes, kernel = _prefill_bytes(engine, tokens), f"ternary_gemm_i8_{packing}_i32"
    return Record(
        phase=phase,
        tokens=tokens,
        threads=engine.num_threads,
        tokens_per_s=median,
        tokens_per_s_min=min(rates),
        tokens_per_s_max=max(rates),
        bytes_per_token=num_bytes,
        gb_per_s=num_bytes * median / 1e9,
        roofline_gb_per_s=roofline,
        isa=runtime.active_isa(),
        packing=packing,
        kernel=kernel,
        head=engine.head,
        kv_cache=engine.kv_cache,
        model=engine.folder.name,
        shape={key: engine.spec[key] for key in _SHAPE_KEYS},
        warmup=warmup,
        repeats=len(seconds),
        machine=facts,
    )
