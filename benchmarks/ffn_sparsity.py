"""Idle neurons of the FFN: how many the embedded model has, and what skipping them saves.

    python benchmarks/ffn_sparsity.py --work DIR --record

Densities are means over tokens that the embedded model samples. Speed is of random weights of the
2B-4T shape, whose neurons are closed by hand (``idle_neurons.py``); dense and sparse take turns.
``make docs`` writes the newest record to docs/ffn-sparsity.md.
"""

from __future__ import annotations

import argparse
import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from bench_model import HERE, record_path, write_record
from engine_runs import generation
from idle_neurons import idle_engine
from marked import rewrite
from random_model import SHAPES, write_random_model
from tables_md import table
from turns import ratio, take_turns

from bitinfer import Model, runtime
from bitinfer.bench.cases import Case
from bitinfer.machine import machine_facts
from bitinfer.runtime import default_model

SHAPE = "bitnet-2b-4t"
GATES = (0.1, 0.3, 0.5, 0.7)
DOWN_SHARE = 2 / 3  # of open gates, the neurons whose activation is not 0: as in the embedded model
PAGE = HERE.parent / "docs" / "ffn-sparsity.md"


def densities(folder: Path, tokens: int) -> dict[str, Any]:
    """Shares of neurons of each layer with an open gate, and with an activation that is not 0."""
    seen: list[list[tuple[float, float]]] = []
    with Model.load(folder, ffn="sparse", speculate="off") as model:
        for seed in count():
            for _ in model.stream("Once upon a time", seed=seed, max_tokens=200):
                seen.append(model.engine.ffn_density())
            if len(seen) >= tokens:
                break
    gate, down = np.mean(seen, axis=0).T
    return {
        "kind": "densities",
        "model": folder.name,
        "tokens": len(seen),
        "gate": [round(share, 3) for share in gate.tolist()],
        "down": [round(share, 3) for share in down.tolist()],
    }


def speeds(folder: Path, threads: int, generated: int, rounds: int) -> list[dict[str, Any]]:
    """Decode tokens/s at each density, dense and sparse."""
    model = folder / "model-t5"
    if not model.exists():
        write_random_model(SHAPES[SHAPE], model, packing="t5")
    lines = []
    for gate in GATES:
        down = gate * DOWN_SHARE
        engines = {
            ffn: idle_engine(model, gate, down, head="int8", ffn=ffn) for ffn in ("dense", "sparse")
        }
        turns = take_turns(
            {ffn: generation(engines[ffn], threads, Case(0, generated)) for ffn in engines}, rounds
        )
        read = {ffn: engine.bytes_per_token()["ternary"] for ffn, engine in engines.items()}
        times = ratio(turns.rates["sparse"], turns.rates["dense"])
        line = {"kind": "speed", "shape": SHAPE, "gate": gate, "down": down, "rounds": rounds}
        line |= {"threads": threads, "ternary_bytes": read, "tokens_per_s": turns.rates}
        line |= {"ratio": times.median, "least": times.least, "largest": times.largest}
        line |= {"others_cpu_share": turns.others_cpu_share}
        lines.append(line)
        print(f"gate {gate}, down {down:.2f}: sparse {times.median:.2f} x dense", flush=True)
    return lines


def parts(records: list[dict[str, Any]]) -> dict[str, str]:
    """What stands between marks of the page, by name."""
    real, *measured = records
    layers = range(len(real["gate"]))
    shares = table(["layer", *map(str, layers)], [["gate", *real["gate"]], ["down", *real["down"]]])
    rows: list[list[str | float | None]] = []
    for line in measured:
        read, rates = line["ternary_bytes"], line["tokens_per_s"]
        row = [f"{line['gate']:g}", f"{line['down']:.2f}"]
        row += [f"{read[ffn] / 1e6:.0f}" for ffn in ("dense", "sparse")]
        row += [f"{np.median(rates[ffn]):.1f}" for ffn in ("dense", "sparse")]
        rows.append([*row, f"{line['ratio']:.2f} ({line['least']:.2f}-{line['largest']:.2f})"])
    heading = ["gate", "down", "MB dense", "MB sparse", "tokens/s dense", "sparse", "ratio"]
    where = (
        f"{real['cpu']}, {measured[0]['threads']} threads, row {real['isa']}, {real['date'][:10]},"
        f" commit {real['commit']}; medians of {measured[0]['rounds']} rounds in turn."
    )
    return {
        "densities": f"{real['model']}, means of {real['tokens']} sampled tokens:\n\n{shares}",
        "speed": f"{where}\n\n{table(heading, rows)}",
    }


def newest() -> list[dict[str, Any]]:
    """The newest record; empty where there is none."""
    files = [json.loads(path.read_text()) for path in (HERE / "records" / "ffn").glob("*.json")]
    return max(files, key=lambda records: records[0]["date"], default=[])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for the model, kept")
    parser.add_argument("-t", "--threads", type=int, default=runtime.num_threads())
    parser.add_argument("-n", "--generated-tokens", type=int, default=32)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="add a record to records/ffn")
    parser.add_argument("--page", action="store_true", help="only rewrite docs/ffn-sparsity.md")
    args = parser.parse_args()
    if args.page:
        if records := newest():
            rewrite(PAGE, parts(records))
        return
    if not args.work:
        parser.error("--work is missing")
    args.work.mkdir(parents=True, exist_ok=True)
    facts = {"isa": runtime.active_isa(), **machine_facts(HERE)}
    if args.record:
        record_path(facts, "ffn")
    records = [
        densities(default_model(), 1000),
        *speeds(args.work, args.threads, args.generated_tokens, args.rounds),
    ]
    records = [record | facts for record in records]
    if args.record:
        print(write_record(records, "ffn"))


if __name__ == "__main__":
    main()
