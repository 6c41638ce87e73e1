"""Measure what is promised of bitinfer's speed, beside llama.cpp: every line of ``docs/speed.md``.

    pip install 'bitinfer[peers]'
    python benchmarks/reach.py --work DIR --record      # about 15 minutes and 4 GB in DIR
    python benchmarks/reach.py --work DIR -k heads,verify

A group's runs take turns (``turns.py``), all on random weights of the 2B-4T shape. llama.cpp runs
TQ2_0, built for this machine; of its two types of embedding the faster counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from llama import llama_name, require_llama
from random_model import SHAPES
from reach_lines import line_text, records_of
from turns import take_turns

from bitinfer import runtime
from bitinfer.machine import machine_facts

SHAPE = "bitnet-2b-4t"


def main() -> None:
    """The command line."""
    require_llama()
    from reach_runs import GROUPS, Bed, Sizes

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models, kept")
    parser.add_argument("-k", "--groups", default=",".join(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("-t", "--threads", type=int, default=runtime.num_threads())
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records to FILE")
    parser.add_argument("--record", action="store_true", help="add a record to records/reach")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    names = args.groups.split(",")
    if unknown := sorted(set(names) - set(GROUPS)):
        raise SystemExit(f"-k: expected names of {', '.join(GROUPS)}, got {unknown[0]!r}")
    facts = {"shape": SHAPE, "threads": args.threads, "isa": runtime.active_isa()}
    facts |= {"peer": llama_name(), **machine_facts(HERE)}
    part = "" if names == list(GROUPS) else "-" + "-".join(names)
    if args.record:
        record_path(facts, "reach", part)
    bed = Bed(args.work, SHAPES[SHAPE], Sizes(), args.threads)
    records: list[dict[str, Any]] = []
    for name in names:
        group = GROUPS[name](bed)
        turns = take_turns(group.runs, args.rounds)
        records += [record | facts for record in records_of(name, group, turns, args.rounds)]
        print(*map(line_text, records[-len(group.lines) :]), sep="\n", flush=True)
        if args.json:
            args.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if args.record:
        print(write_record(records, "reach", part))


if __name__ == "__main__":
    main()
