"""Measure bitinfer and llama.cpp side by side, on the same weights with the same threads.

    pip install 'bitinfer[peers]'      # compiles llama.cpp
    python benchmarks/peers.py MODEL... -t 2 --record

The programs take turns, so that what else the machine does meets all of them. MODEL is a packed
folder (random_model.py writes one); the first one is also given to llama.cpp, as TQ1_0 and TQ2_0.
Like bitinfer, llama.cpp picks the likeliest token after each step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from bench_model import HERE, write_record

from bitinfer import runtime
from bitinfer.bench import bench
from bitinfer.engine import Engine
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.machine import machine_facts

QUIET_SHARE = 0.03  # of the machine's CPU time, for other programs, in a run that counts at once
MOST_TRIES = 5


@dataclass(frozen=True)
class Program:
    """One of those that take turns.

    Attributes:
        name: ``bitinfer 0.1.0``.
        form: How it holds the weights: ``t5``, ``TQ1_0``.
        file_bytes: Of the model's weights on disk.
        rate: Tokens/s of one run of (prompt tokens, 0) or (0, generated tokens).
        build: What it was compiled for.
    """

    name: str
    form: str
    file_bytes: int
    rate: Callable[[int, int], float]
    build: str


def bitinfer_program(folder: Path, threads: int, context: int) -> Program:
    """This library with the packing of the file."""
    path = folder / PACKED_NAME
    packing = PackedFile(path).header.packing
    engine = Engine.load(folder, packing=packing, num_threads=threads, context_length=context)

    def rate(prompt: int, generated: int) -> float:
        (record,) = bench(engine, prompts=[prompt], generated=[generated], repeats=1, warmup=0)
        return record.tokens_per_s

    name = f"bitinfer {runtime.version()}"
    return Program(name, packing, path.stat().st_size, rate, runtime.active_isa())


class Llama:
    """llama.cpp with a GGUF file, through llama-cpp-python's thin layer over its C interface."""

    def __init__(self, path: Path, threads: int, context: int) -> None:
        import llama_cpp

        self._lib = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, None)
        model_options = llama_cpp.llama_model_default_params()
        model_options.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_options)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.build = llama_cpp.llama_print_system_info().decode().strip(" |")

    def rate(self, prompt: int, generated: int) -> float:
        """Tokens/s of a prompt up to its first token, or of tokens after a prompt of one."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        ids = np.random.default_rng(0).integers(self._vocab_size, size=prompt or 1).tolist()
        if not prompt:
            ids = [self._step(ids)]
        start = time.perf_counter()
        for _ in range(generated or 1):
            ids = [self._step(ids)]
        return (prompt + generated) / (time.perf_counter() - start)

    def _step(self, ids: list[int]) -> int:
        """Run ids and return the likeliest next one."""
        lib = self._lib
        tokens = (lib.llama_token * len(ids))(*ids)
        if lib.llama_decode(self._context, lib.llama_batch_get_one(tokens, len(ids))):
            raise SystemExit("llama.cpp: llama_decode failed")
        logits = lib.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


def llama_program(path: Path, form: str, threads: int, context: int) -> Program:
    """llama.cpp with the GGUF file ``path``."""
    llama = Llama(path, threads, context)
    name = f"llama.cpp (llama-cpp-python {version('llama-cpp-python')})"
    return Program(name, form, path.stat().st_size, llama.rate, llama.build)


def undisturbed(program: Program, test: tuple[int, int]) -> tuple[float, float]:
    """Run a test again while other programs use the machine; llama.cpp's threads wait spinning.

    Returns:
        Tokens/s of the least disturbed run, and the share of the machine's time that others had.
    """
    runs = []
    for _ in range(MOST_TRIES):
        began, others = time.perf_counter(), other_cpu_s()
        rate = program.rate(*test)
        elapsed = (time.perf_counter() - began) * (os.cpu_count() or 1)
        runs.append((max(0.0, other_cpu_s() - others) / elapsed, rate))
        if runs[-1][0] <= QUIET_SHARE:
            break
    share, rate = min(runs)
    return rate, share


def other_cpu_s() -> float:
    """CPU seconds that all programs but this one have used; 0 where the system does not tell."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    own = os.times()
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system


def take_turns(
    programs: list[Program], tests: list[tuple[int, int]], repeats: int
) -> list[dict[str, Any]]:
    """Run every test of every program once a round; the first round is not counted.

    Returns:
        A record for each program and test. ``ratio`` is the first program's speed by this one's,
        the median of the rounds; beside it the least and the largest. ``others_cpu_share`` is the
        largest share of the machine that other programs had during a run.
    """
    rates: dict[tuple[int, tuple[int, int]], list[float]] = {}
    others = 0.0
    for number in range(repeats + 1):
        for test in tests:
            for index, program in enumerate(programs):
                if not number:
                    program.rate(*test)
                else:
                    rate, share = undisturbed(program, test)
                    rates.setdefault((index, test), []).append(rate)
                    others = max(others, share)
    records = []
    for (index, test), runs in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[0, test], runs, strict=True)]
        program = programs[index]
        records.append(
            {
                "program": program.name,
                "form": program.form,
                "phase": "prefill" if test[0] else "decode",
                "tokens": sum(test),
                "tokens_per_s": statistics.median(runs),
                "tokens_per_s_runs": runs,
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "file_bytes": program.file_bytes,
                "build": program.build,
                "repeats": repeats,
                "others_cpu_share": others,
            }
        )
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Markdown; ratios are how much faster the first program is."""
    lines = [
        "| program | weights | phase | tokens/s | slowest-fastest | first is faster by |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for record in records:
        runs = record["tokens_per_s_runs"]
        spread = f"{record['ratio_min']:.2f}-{record['ratio_max']:.2f}"
        cells = [
            record["program"],
            record["form"],
            f"{record['phase']} {record['tokens']}",
            f"{record['tokens_per_s']:.1f}",
            f"{min(runs):.1f}-{max(runs):.1f}",
            f"{record['ratio']:.2f} ({spread})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="packed folders")
    parser.add_argument("-t", "--threads", type=int, default=runtime.num_threads())
    parser.add_argument("-p", "--prompt-tokens", type=int, default=128)
    parser.add_argument("-n", "--generated-tokens", type=int, default=32)
    parser.add_argument("-r", "--repeats", type=int, default=5)
    parser.add_argument("--gguf", type=Path, metavar="DIR", help="keep GGUF files, and reuse them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records to FILE")
    parser.add_argument("--record", action="store_true", help="add a record to records/peers")
    args = parser.parse_args()
    for name in ("gguf", "llama_cpp"):
        if find_spec(name) is None:
            raise SystemExit(f"{name} is missing: pip install 'bitinfer[peers]'")
    from gguf_model import TERNARY_TYPES, write_gguf

    context = max(args.prompt_tokens, args.generated_tokens + 1) + 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.gguf or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        programs = [bitinfer_program(model, args.threads, context) for model in args.models]
        for form in TERNARY_TYPES:
            path = folder / f"{args.models[0].name}-{form}.gguf"
            if not path.exists():
                write_gguf(args.models[0], path, form)
            programs.append(llama_program(path, form, args.threads, context))
        tests = [(args.prompt_tokens, 0), (0, args.generated_tokens)]
        records = take_turns(programs, tests, args.repeats)
    facts = {"model": args.models[0].name, "threads": args.threads, "head": "int8; GGUF: Q6_K"}
    facts |= {"kv_cache": "f16", **machine_facts(HERE)}
    records = [{**record, **facts} for record in records]
    print(table(records))
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if args.record:
        print(write_record(records, "peers"))


if __name__ == "__main__":
    main()
