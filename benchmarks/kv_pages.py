"""What huge pages under the KV cache are worth: decode after a long context, with and without them.

    python benchmarks/kv_pages.py --work DIR --record

Random weights of the 2B-4T shape, mapped; the two caches take turns. The one of small pages is
filled while the process has huge pages switched off (prctl). Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from random_model import SHAPES, write_random_model
from turns import Run, ratio, take_turns

from bitinfer import runtime
from bitinfer.bench.cases import Case, Runs, fill, run
from bitinfer.energy import NoCounter
from bitinfer.engine import Engine
from bitinfer.machine import machine_facts

SHAPE = "bitnet-2b-4t"
DEPTH = 4032
_PR_SET_THP_DISABLE = 41


@contextmanager
def small_pages(wanted: bool) -> Iterator[None]:
    """Memory that is touched meanwhile lies in pages of 4 KiB."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_THP_DISABLE, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield
    finally:
        prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)


def huge_page_bytes() -> int:
    """What this process has in huge pages."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"AnonHugePages:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def decode(model: Path, kv_cache: str, pages: str, threads: int, generated: int) -> tuple[Run, int]:
    """Tokens/s after DEPTH tokens; and how much more lies in huge pages once the cache is full."""
    engine = Engine.load(model, kv_cache=kv_cache, weights="mmap", num_threads=threads)
    case = Case(0, generated)
    kv = engine.new_cache(DEPTH + case.positions + 1)
    before = huge_page_bytes()
    with small_pages(pages == "small"):
        fill(engine, kv, DEPTH)
    huge = huge_page_bytes() - before

    def once() -> float:
        fill(engine, kv, DEPTH)
        taken = Runs()
        run(engine, kv, case, NoCounter(""), taken)
        return case.tokens / taken.seconds[0]

    return once, huge


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the model, kept")
    parser.add_argument("-t", "--threads", type=int, default=runtime.num_threads())
    parser.add_argument("-n", "--generated-tokens", type=int, default=24)
    parser.add_argument("-r", "--rounds", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="add a record to records/kv-pages")
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "kv-pages")
    model = args.work / "model-t5"
    if not model.exists():
        write_random_model(SHAPES[SHAPE], model, packing="t5")
    lines = []
    for kv_cache in ("f16", "int8"):
        runs = {
            pages: decode(model, kv_cache, pages, args.threads, args.generated_tokens)
            for pages in ("small", "huge")
        }
        turns = take_turns({pages: once for pages, (once, _) in runs.items()}, args.rounds)
        times = ratio(turns.rates["huge"], turns.rates["small"])
        line: dict[str, Any] = {
            "task": "kv-pages",
            "shape": SHAPE,
            "kv_cache": kv_cache,
            "depth": DEPTH,
            "threads": args.threads,
            "huge_page_bytes": {pages: huge for pages, (_, huge) in runs.items()},
            "tokens_per_s": turns.rates,
            "ratio": times.median,
            "least": times.least,
            "largest": times.largest,
            "others_cpu_share": turns.others_cpu_share,
        }
        print(line, flush=True)
        lines.append(line | facts)
    if args.record:
        print(write_record(lines, "kv-pages"))


if __name__ == "__main__":
    main()
