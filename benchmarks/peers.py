"""Measure bitinfer and llama.cpp side by side, on the same weights with the same threads.

    pip install 'bitinfer[peers]'      # compiles llama.cpp
    python benchmarks/peers.py MODEL... -t 2 --record

The programs take turns (``turns.py``). MODEL is a packed
folder (random_model.py writes one); the first one is also given to llama.cpp, as TQ1_0 and TQ2_0.
Like bitinfer, llama.cpp picks the likeliest token after each step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench_model import HERE, write_record
from llama import Llama, llama_name, require_llama
from turns import ratio, take_turns

from bitinfer import runtime
from bitinfer.bench import bench
from bitinfer.engine import Engine
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.machine import machine_facts


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


def llama_program(path: Path, form: str, threads: int, context: int) -> Program:
    """llama.cpp with the GGUF file ``path``."""
    llama = Llama(path, threads, context)
    return Program(llama_name(), form, path.stat().st_size, llama.rate, llama.build)


def measure(
    programs: list[Program], tests: list[tuple[int, int]], rounds: int
) -> list[dict[str, Any]]:
    """Run every test of every program once a round.

    Returns:
        A record for each program and test. ``ratio`` is the first program's speed by this one's,
        the median of the rounds; beside it the least and the largest. ``others_cpu_share`` is the
        largest share of the machine that other programs had during a run.
    """
    runs = {
        (index, test): partial(program.rate, *test)
        for test in tests
        for index, program in enumerate(programs)
    }
    turns = take_turns(runs, rounds)
    records = []
    for (index, test), rates in turns.rates.items():
        program, faster = programs[index], ratio(turns.rates[0, test], rates)
        records.append(
            {
                "program": program.name,
                "form": program.form,
                "phase": "prefill" if test[0] else "decode",
                "tokens": sum(test),
                "tokens_per_s": statistics.median(rates),
                "tokens_per_s_runs": rates,
                "ratio": faster.median,
                "ratio_min": faster.least,
                "ratio_max": faster.largest,
                "file_bytes": program.file_bytes,
                "build": program.build,
                "repeats": rounds,
                "others_cpu_share": turns.others_cpu_share,
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
    require_llama()
    from gguf_model import TERNARY_TYPES, write_gguf

    context = max(args.prompt_tokens, args.generated_tokens + 1) + 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.gguf or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        programs = [bitinfer_program(model, args.threads, context) for model in args.models]
        for form in TERNARY_TYPES:
            path = folder / f"{args.models[0].name}-{form}.gguf"
            if not path.exists():
                write_gguf(args.models[0], path, form, "Q6_K")
            programs.append(llama_program(path, form, args.threads, context))
        tests = [(args.prompt_tokens, 0), (0, args.generated_tokens)]
        records = measure(programs, tests, args.repeats)
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
