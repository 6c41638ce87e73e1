"""What a token costs outside its arithmetic: Python, the binding, sampling, text; and the start.

    python benchmarks/overhead.py --record

Arithmetic is the native call of a decode step (`Decoder.decode` of the core) on tokens, a cache and
a row that are ready, in a loop of its own over the same tokens. Overhead is what a token of
`Model.stream` takes beyond it, on one thread, what the Python code pushes out of the CPU's caches
included. The parts are timed one at a time, each in runs of its own. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bench_model import write_record

from bitinfer import Model, default_model
from bitinfer.detokenizer import StreamingDetokenizer
from bitinfer.engine import Engine
from bitinfer.generate import Reply
from bitinfer.machine import machine_facts
from bitinfer.sampling import Sampler, SamplingParams

HERE = Path(__file__).resolve().parent
PROMPT = "Once upon a time"
TOKENS, SKIPPED = 160, 10  # of a reply; the first are not counted
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "default sampling": {"seed": 1},  # of the model's generation_config.json
    "greedy, drafts looked up": {"temperature": 0, "speculate": "ngram"},
}
PARTS: dict[str, tuple[type, str]] = {
    "engine": (Engine, "decode"),
    "sampler": (Sampler, "__call__"),
    "detokenizer": (StreamingDetokenizer, "add"),
    "reply": (Reply, "add"),
}
LARGE_VOCABULARY = 128_256
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "top_k 40, top_p 0.95": {"temperature": 0.7, "top_k": 40, "top_p": 0.95},
    "top_k 40": {"temperature": 0.8, "top_k": 40},
    "top_p 0.9": {"temperature": 0.8, "top_p": 0.9},
    "min_p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "typical_p 0.9": {"temperature": 0.8, "typical_p": 0.9},
    "temperature alone": {"temperature": 0.8},
}
COMMANDS = {
    "import bitinfer": ["-c", "import bitinfer"],
    "bitinfer --help": ["-m", "bitinfer", "--help"],
    "bitinfer generate, one token": [
        *("-m", "bitinfer", "generate", PROMPT, "--max-tokens", "1", "--temperature", "0"),
    ],
}


class TimedDecoder:
    """Passes everything on to a native decoder; notes when each decode step begins and ends."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self.steps: list[tuple[int, int]] = []  # ns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, *args: Any) -> None:
        """Run a step."""
        start = time.perf_counter_ns()
        self._decoder.decode(*args)
        self.steps.append((start, time.perf_counter_ns()))


def stream(model: Model, options: dict[str, Any]) -> tuple[list[int], list[tuple[int, int]]]:
    """One reply: its token ids, and begin and end of each decode step."""
    native = model.engine._decoder
    timed = TimedDecoder(native)
    model.engine._decoder = timed  # type: ignore[assignment]
    try:
        with model.stream(PROMPT, max_tokens=TOKENS, **options) as pieces:
            for _ in pieces:
                pass
    finally:
        model.engine._decoder = native
    return list(pieces.completion.token_ids), timed.steps


def arithmetic_ns(model: Model, token_ids: list[int]) -> list[int]:
    """What the native step takes for each token of a reply but the last."""
    decoder = model.engine._decoder
    cache = model.engine.new_cache()
    row = model.engine.forward([model.tokenizer.encode(PROMPT, True)], [cache])[0]
    taken = []
    for token_id in token_ids[:-1]:
        start = time.perf_counter_ns()
        decoder.decode(token_id, cache, row)
        taken.append(time.perf_counter_ns() - start)
    return taken


def measure_case(model: Model, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Medians over all tokens of all runs, in microseconds; runs take turns with arithmetic."""
    stream(model, options)  # warms up, also the tokenizer's memory of pieces
    tokens, native, gaps = [], [], []
    for _ in range(repeats):
        token_ids, steps = stream(model, options)
        alone = arithmetic_ns(model, token_ids)
        for before, after in zip(steps[SKIPPED:], steps[SKIPPED + 1 :], strict=False):
            tokens.append(after[1] - before[1])
            gaps.append(after[0] - before[1])
        native += alone[SKIPPED + 1 :]
    parts = {name: _part(model, options, name) for name in PARTS}
    parts["reply"] -= parts["detokenizer"]
    overhead = _us(tokens) - _us(native)
    return {
        "token_us": _us(tokens),
        "arithmetic_us": _us(native),
        "overhead_us": round(overhead, 1),
        "between_native_calls_us": _us(gaps),
        **{f"{name}_us": round(value, 1) for name, value in parts.items()},
        "tokens": len(tokens),
    }


def _part(model: Model, options: dict[str, Any], name: str) -> float:
    with _timed(*PARTS[name]) as taken:
        _, steps = stream(model, options)
    whole = _us(taken[SKIPPED:])
    if name != "engine":
        return whole
    return whole - _us([end - start for start, end in steps[SKIPPED:]])


@contextmanager
def _timed(owner: type, name: str) -> Iterator[list[int]]:
    """Time every call of a method."""
    method, taken = getattr(owner, name), []

    def timed(*args: Any, **options: Any) -> Any:
        start = time.perf_counter_ns()
        result = method(*args, **options)
        taken.append(time.perf_counter_ns() - start)
        return result

    setattr(owner, name, timed)
    try:
        yield taken
    finally:
        setattr(owner, name, method)


def measure_sampling(repeats: int) -> dict[str, float]:
    """Microseconds of thread time of the sampler alone, random logits of a large vocabulary."""
    logits = np.random.default_rng(0).normal(0, 3, LARGE_VOCABULARY).astype(np.float32)
    result = {}
    for name, options in SAMPLING.items():
        sampler = Sampler(SamplingParams(**options, seed=1))
        result[name] = _us([_thread_ns(lambda s=sampler: s(logits)) for _ in range(20 * repeats)])
    return result


def _thread_ns(run: Callable[[], object]) -> int:
    start = time.thread_time_ns()
    run()
    return time.thread_time_ns() - start


def measure_several(model: Model, repeats: int) -> dict[str, float]:
    """Seconds of four replies at once and of four one after the other, in turns."""
    options: dict[str, Any] = {"max_tokens": TOKENS, "logit_bias": {2: -np.inf}}  # no early end
    together, apart = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        model.generate_n(PROMPT, 4, seed=1, **options)
        middle = time.perf_counter()
        for seed in range(1, 5):
            model.generate(PROMPT, seed=seed, **options)
        together.append(middle - start)
        apart.append(time.perf_counter() - middle)
    names = ("generate_n_s", statistics.median(together)), ("generate_s", statistics.median(apart))
    return {name: round(value, 4) for name, value in names}


def measure_start(repeats: int) -> dict[str, float]:
    """Seconds of whole processes, the median."""
    result = {}
    for name, command in COMMANDS.items():
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            taken.append(time.perf_counter() - start)
        result[name] = round(statistics.median(taken), 3)
    return result


def _us(taken: list[int]) -> float:
    return round(statistics.median(taken) / 1e3, 1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--repeats", type=int, default=10)
    parser.add_argument("--record", action="store_true", help="add to records/overhead/")
    args = parser.parse_args()
    with Model.load(default_model(), num_threads=1) as model:
        cases = {name: measure_case(model, how, args.repeats) for name, how in CASES.items()}
        several = measure_several(model, args.repeats)
    record = {
        "model": default_model().name,
        "threads": 1,
        "cases": cases,
        f"sampler_us_of_{LARGE_VOCABULARY}": measure_sampling(args.repeats),
        "four_replies": several,
        "start_s": measure_start(args.repeats),
        **machine_facts(HERE),
    }
    for name, case in cases.items():
        print(f"{name}:", ", ".join(f"{key} {value}" for key, value in case.items()))
    for key in (f"sampler_us_of_{LARGE_VOCABULARY}", "four_replies", "start_s"):
        print(f"{key}:", ", ".join(f"{name} {value}" for name, value in record[key].items()))
    if args.record:
        print(write_record([record], "overhead"))


if __name__ == "__main__":
    main()
