"""The training studies: short runs side by side on the same tokens. Needs the extra ``train``.

    python benchmarks/training_studies.py STUDY --data DIR --work DIR --record

DIR of ``--data`` holds the texts of recipes/tales/data, unpacked. A study that was cut goes on
where it was, and a run that two studies share is made once. ``make docs`` writes the newest records
to docs/training-studies.md and draws them.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from ffn_sparsity import densities
from study_runs import COMMON, STUDIES

from bitinfer.machine import machine_facts
from bitinfer.runtime import default_model
from bitinfer.train import BitLinear, TrainConfig, TrainResult, train

DATA = ("tinystories.txt", "ccby.txt", "fairytale.txt", "chat_own.txt")
VALIDATION = ("val.txt", "val_chat.txt")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", type=Path, required=True, help="folder of the texts")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs, kept")
    parser.add_argument("--record", action="store_true", help="add a record to records/studies")
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "studies", f"-{args.study}")
    args.work.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, changes in STUDIES[args.study].runs.items():
        config = TrainConfig(
            **{
                **COMMON,
                "data": [str(args.data / file) for file in DATA],
                "validation": [str(args.data / file) for file in VALIDATION],
                "tokenizer": str(default_model()),
                **changes,
            }
        )
        out = args.work / hashlib.sha256(config.to_json().encode()).hexdigest()[:12]
        result = train(config, out, resume=out.exists())
        lines.append({"study": args.study, "run": name, **outcome(result), "changes": changes})
        print(f"{name}: {lines[-1]['validation']}", flush=True)
    if args.record:
        print(write_record([line | facts for line in lines], "studies", f"-{args.study}"))


def outcome(result: TrainResult) -> dict[str, Any]:
    """What a run came to."""
    measured = [record for record in result.records if record.validation]
    found: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in result.model.parameters()),
        "tokens": measured[-1].tokens,
        "losses": [[r.tokens, round(r.loss, 4)] for r in result.records[9::10]],
        "validations": [[r.tokens, r.validation] for r in measured],
        "validation": measured[-1].validation,
        "largest_grad_norm": max(record.grad_norm for record in result.records),
    }
    if any(isinstance(module, BitLinear) for module in result.model.modules()):
        seen = densities(result.folder, 200)
        found["density"] = {part: seen[part] for part in ("gate", "down")}
    return found


if __name__ == "__main__":
    main()
