"""Measure what it costs to refuse hostile GGUF headers, those of tests/test_gguf.py.

    python benchmarks/hostile_gguf.py --record       # needs the packages of the extra `test`

The promise is 100 ms and 64 MiB for each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record

from bitinfer.errors import CheckpointError
from bitinfer.formats.gguf import GgufFile
from bitinfer.machine import machine_facts


def refuse(path: Path) -> None:
    """Open a file that must be refused."""
    try:
        GgufFile(path)
    except CheckpointError:
        return
    raise SystemExit(f"{path}: expected to be refused")


def measure(path: Path, repeats: int) -> dict[str, Any]:
    """Milliseconds of each repeat and the most memory that Python took."""
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        refuse(path)
        runs.append(round((time.perf_counter() - start) * 1e3, 2))
    tracemalloc.start()
    refuse(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "file_bytes": path.stat().st_size,
        "refused_ms": statistics.median(runs),
        "refused_ms_runs": runs,
        "peak_bytes": peak,
    }


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--repeats", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="add a record to records/hostile")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE.parent / "tests"))
    from test_gguf import LARGE

    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "hostile")
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (content, _) in LARGE.items():
            path = Path(folder) / "x.gguf"
            path.unlink(missing_ok=True)
            path.write_bytes(content())
            records.append({"header": name, **measure(path, args.repeats), **facts})
            found = records[-1]
            print(f"{name}: {found['refused_ms']} ms, {found['peak_bytes'] / 2**20:.1f} MiB")
    if args.record:
        print(write_record(records, "hostile"))


if __name__ == "__main__":
    main()
