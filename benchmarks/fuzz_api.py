"""Ask a server whatever its OpenAPI document allows, and what it does not, by schemathesis.

    python benchmarks/fuzz_api.py --record        # or `make fuzz-api`; needs the extra `interop`

500 requests to each route, valid ones and others, made of the document by the property-based
tester. No answer may be a 5xx, or one that the document does not know: another status, an error in
another shape, a bad request that was taken. (That a request which fits the document is refused is
no fault: no schema can say that a prompt must fit the context.)
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from serving import bitinfer_server

from bitinfer.machine import machine_facts

ENDLESS = "/history/events"  # a stream that ends with its reader
CONTEXT = "128"  # so that a reply without a limit is short
ANSWER_S = 60


def fuzz(examples: int, phases: str = "coverage,fuzzing", seed: int = 1) -> dict[str, Any]:
    """Run schemathesis against a server with the embedded model and an empty history.

    Args:
        examples: Requests to each route, besides those that try each rule of the document once.
        phases: Of schemathesis: ``coverage`` are the latter.
        seed: Of the requests.

    Returns:
        A record: ``statuses`` counts the answers of each path, as the server itself counted them.
    """
    with tempfile.TemporaryDirectory() as folder:
        history = str(Path(folder) / "history.db")
        options = ["--context-length", CONTEXT, "--history-file", history]
        with bitinfer_server("tales-14m", *options) as server:
            url = f"http://127.0.0.1:{server.port}"
            command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
            command += ["--max-examples", str(examples), "--seed", str(seed), "--phases", phases]
            command += ["--mode", "all", "--exclude-path", ENDLESS, "--continue-on-failure"]
            command += ["--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
            command += ["--request-timeout", str(ANSWER_S), "--generation-database", "none"]
            began = time.perf_counter()
            done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
            seconds = time.perf_counter() - began
            statuses = _statuses(server.port)
    found = re.search(r"(\d+) generated", done.stdout)
    return {
        "program": f"schemathesis {version('schemathesis')}",
        "examples": examples,
        "seed": seed,
        "requests": int(found[1]) if found else 0,
        "seconds": round(seconds, 1),
        "passed": done.returncode == 0,
        "statuses": statuses,
        "said": "" if done.returncode == 0 else done.stdout + done.stderr,
    }


def _statuses(port: int) -> dict[str, dict[str, int]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found: dict[str, Counter[str]] = {}
    for path, status, count in re.findall(
        r'^bitinfer_requests_total{path="(.*)",status="(\d+)"} (\S+)$', text, re.MULTILINE
    ):
        found.setdefault(path, Counter())[status] += int(float(count))
    return {path: dict(sorted(counts.items())) for path, counts in sorted(found.items())}


def server_errors(record: dict[str, Any]) -> int:
    """How many answers were a 5xx."""
    counts = [item for found in record["statuses"].values() for item in found.items()]
    return sum(count for status, count in counts if status.startswith("5"))


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--examples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="add a record to records/fuzz")
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "fuzz")
    record = fuzz(args.examples, seed=args.seed)
    print(record.pop("said"), end="")
    for path, counts in record["statuses"].items():
        print(f"{path}: {', '.join(f'{n} x {status}' for status, n in counts.items())}")
    print(f"{record['requests']} requests, {server_errors(record)} x 5xx, {record['seconds']} s")
    if args.record:
        print(write_record([{**record, **facts}], "fuzz"))
    if not record["passed"] or server_errors(record):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
