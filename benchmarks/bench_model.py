"""Measure packed models and add a record: speed, loading time, memory.

    python benchmarks/bench_model.py MODEL... -t 2

Each model runs in the packing that its file holds. Writes ``records/<date>-<cpu>-<commit>.json``.
Loading and memory are measured in a process of their own, before anything else has used memory.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bitinfer.bench import bench
from bitinfer.energy import open_energy_counter
from bitinfer.engine import Engine
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.generate import generate_step
from bitinfer.sampling import Sampler, SamplingParams

HERE = Path(__file__).resolve().parent
LOADS = 5  # the first one brings the file into the page cache
MEASURED_TOKENS = 32  # generated before resident memory is read


def measure_footprint(folder: Path, threads: int, context_length: int) -> dict[str, Any]:
    """Time to load the engine (no tokenizer) and memory after generating; for a fresh process."""
    loads, engine = [], None
    for _ in range(LOADS):
        del engine
        start = time.perf_counter()
        engine = _load(folder, threads, context_length)
        loads.append(time.perf_counter() - start)
    assert engine is not None
    cache = engine.new_cache()
    steps = generate_step(engine, [0] * 64, cache, Sampler(SamplingParams()))
    for _ in range(MEASURED_TOKENS):
        next(steps)
    return {
        "load_s": statistics.median(loads[1:]),
        "resident_bytes": resident_bytes(),
        "file_bytes": (folder / PACKED_NAME).stat().st_size,
        "kv_cache_bytes": cache.nbytes,
    }


def record_models(
    models: list[Path], threads: int, prompt_tokens: int, generated_tokens: int, repeats: int
) -> list[dict[str, Any]]:
    """Records of all phases of the models, each with the model's footprint."""
    records = []
    counter = open_energy_counter()
    context = max(prompt_tokens, generated_tokens) + 1
    for folder in models:
        footprint = _in_own_process(folder, threads, context)
        engine = _load(folder, threads, context)
        for record in bench(
            engine,
            prompts=[prompt_tokens],
            generated=[generated_tokens],
            repeats=repeats,
            energy=counter,
            checkout=HERE,
        ):
            records.append({**record.to_json(), **footprint})
            share = record.gb_per_s / record.roofline_gb_per_s
            print(f"{folder.name} {record.phase}: {record.tokens_per_s:.1f} tokens/s, {share:.0%}")
    return records


def _load(folder: Path, threads: int, context_length: int) -> Engine:
    packing = PackedFile(folder / PACKED_NAME).header.packing
    return Engine.load(folder, packing=packing, num_threads=threads, context_length=context_length)


def cpu_name(cpu: str) -> str:
    """A processor's name as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", cpu.lower().replace("(r)", "")).strip("-")


def record_path(facts: dict[str, Any], folder: str = "", part: str = "") -> Path:
    """``records/<folder>/<date>-<cpu>-<commit><part>.json``, which must not be there yet."""
    name = f"{facts['date'][:10]}-{cpu_name(facts['cpu'])}-{facts['commit']}{part}.json"
    path = HERE / "records" / folder / name
    if path.exists():
        raise SystemExit(f"{path}: is there already: records are added to, never edited")
    return path


def write_record(records: list[dict[str, Any]], folder: str = "", part: str = "") -> Path:
    """Add a file to the records; one that is there is not replaced."""
    path = record_path(records[0], folder, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return path


def _in_own_process(folder: Path, threads: int, context: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--footprint", str(folder)]
    command += ["-t", str(threads), "-n", str(context - 1), "-p", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="packed folders")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-p", "--prompt-tokens", type=int, default=512)
    parser.add_argument("-n", "--generated-tokens", type=int, default=128)
    parser.add_argument("-r", "--repeats", type=int, default=5)
    parser.add_argument("--footprint", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.footprint:
        context = max(args.prompt_tokens, args.generated_tokens) + 1
        print(json.dumps(measure_footprint(args.models[0], args.threads, context)))
        return
    records = record_models(
        args.models, args.threads, args.prompt_tokens, args.generated_tokens, args.repeats
    )
    print(write_record(records))


if __name__ == "__main__":
    main()
