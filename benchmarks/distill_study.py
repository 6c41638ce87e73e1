"""BitDistill's ablation table: what each stage brings on a task. Needs the extra ``train``.

    python benchmarks/distill_study.py --data DIR --work DIR --record

DIR of ``--data`` holds the texts of recipes/tales/data, unpacked, of which story_origin.py
makes the task. The base learns plain text without the documents that are held out. A study that
was cut goes on where it was. ``make docs`` writes the newest record to docs/distillation.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_model import HERE, record_path, write_record
from distill_rows import BASE, ROWS, SEEDS, TASK, TEACHER, TUNE, WARM, Row
from story_origin import ORIGINS, make_task, split

from bitinfer import Model
from bitinfer.evaluate import Question, choose, read_labelled_texts
from bitinfer.evaluate.choice import text_span
from bitinfer.formats.new_file import replace_file
from bitinfer.machine import machine_facts
from bitinfer.runtime import default_model
from bitinfer.tokenizer import Tokenizer
from bitinfer.train import DistillConfig, TrainConfig, TrainResult, distill, train

COMPARED = 300  # passages that torch answers too, of ternary models of the first seed
_AT_ONCE = 64  # texts in a forward pass of torch


class Study:
    """Runs in a folder, each made once.

    Attributes:
        work: The folder.
        questions: The held-out passages.
    """

    def __init__(self, data: Path, work: Path) -> None:
        """Make the task, the plain text without what is held out, the base and the student."""
        self.work = work
        text = work / "stories.txt"
        for part, lines in make_task(data, **TASK).items():
            replace_file(work / f"{part}.jsonl", "\n".join(lines) + "\n")
        learned = [each for label in ORIGINS for each in split(data, label, TASK["seed"])[0]]
        replace_file(text, "\n".join(f"<s>{document}" for document in learned) + "\n")
        self.questions = read_labelled_texts(work / "test.jsonl").questions
        plain = {"data": [str(text)], "validation": [str(data / "val.txt")]}
        self.base = self._run("base", BASE | plain | {"tokenizer": str(default_model())})
        self.warm = self._run("warm", WARM | plain | {"start": str(self.base.folder)})

    def _run(self, name: str, settings: dict[str, Any]) -> TrainResult:
        out = self.work / name
        return train(TrainConfig(**settings), out, resume=out.exists())

    def tuned(self, row: Row, seed: int) -> TrainResult:
        """The model of a row."""
        out = self.work / f"{re.sub('[^a-z0-9]+', '-', row.name)}-{seed}"
        starts = {"base": self.base.folder, "warm": self.warm.folder}
        start = str(starts[row.start]) if row.start in starts else None
        own = {"seed": seed, "data": [str(self.work / "train.jsonl")], "start": start}
        config = TrainConfig(**{**TUNE, **row.settings, **own})
        if row.weights is None:
            return train(config, out, resume=out.exists())
        teacher = self.tuned(TEACHER, SEEDS[0]).folder
        stages = DistillConfig(teacher=str(teacher), finetune=config, weights=row.weights)
        return distill(stages, out, resume=out.exists())

    def measured(self, row: Row, seed: int) -> dict[str, Any]:
        """Which passages a model tells right: in the engine, or in torch of full precision."""
        result = self.tuned(row, seed)
        line = {"row": row.name, "seed": seed, "loss": round(result.losses[-1], 4)}
        if row.settings.get("linear") == "full":
            line["measured_by"], told = "torch", told_by_torch(result, self.questions)
        else:
            line["measured_by"], told = "engine", told_by_engine(result.folder, self.questions)
            if seed == SEEDS[0]:
                by_torch = told_by_torch(result, self.questions[:COMPARED])
                line["compared"] = len(by_torch)
                line["as_torch"] = sum(a == b for a, b in zip(told, by_torch, strict=False))
        answers = [question.answer for question in self.questions]
        line["right"] = "".join("01"[a == b] for a, b in zip(told, answers, strict=True))
        return line


def told_by_engine(folder: Path, questions: Sequence[Question]) -> list[int]:
    """The answers of a ternary model, as ``bitinfer eval classify`` finds them."""
    with Model.load(folder) as model:
        return [choice.likeliest for choice in choose(model, questions)]


@torch.no_grad()
def told_by_torch(result: TrainResult, questions: Sequence[Question]) -> list[int]:
    """The same of the model in torch, in fp32."""
    tokenizer = Tokenizer.load(result.folder, vocab_size=result.model.config.vocab_size)
    spans = [
        text_span(tokenizer, question.prompt, f" {choice}")
        for question in questions
        for choice in question.choices
    ]
    order = sorted(range(len(spans)), key=lambda i: len(spans[i].token_ids))  # little padding
    found = torch.zeros(len(spans))
    for begin in range(0, len(spans), _AT_ONCE):
        batch = order[begin : begin + _AT_ONCE]
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(spans[i].token_ids) for i in batch], batch_first=True
        )
        logs = result.model(input_ids=ids, use_cache=False).logits[:, :-1].log_softmax(-1)
        taken = logs.gather(-1, ids[:, 1:, None])[..., 0]
        for row, i in zip(taken, batch, strict=True):
            found[i] = row[spans[i].start - 1 : len(spans[i].token_ids) - 1].sum()
    return found.view(len(questions), -1).argmax(-1).tolist()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the texts")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs, kept")
    parser.add_argument("--record", action="store_true", help="add a record to records/studies")
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "studies", "-distill")
    args.work.mkdir(parents=True, exist_ok=True)
    study = Study(args.data, args.work)
    about = {"study": "distill", "task": TASK, "tune": TUNE, "passages": len(study.questions)}
    for name, run in (("base", study.base), ("warm", study.warm)):
        last = run.records[-1]
        about[name] = {"tokens": last.tokens, "validation": last.validation["val.txt"]}
    about["parameters"] = sum(weight.numel() for weight in study.base.model.parameters())
    print(about, flush=True)
    lines = [about]
    for seed in SEEDS:
        for row in ROWS:
            lines.append(study.measured(row, seed))
            share = lines[-1]["right"].count("1") / len(study.questions)
            print(f"{row.name}, seed {seed}: {share:.3f}", flush=True)
    if args.record:
        print(write_record([line | facts for line in lines], "studies", "-distill"))


if __name__ == "__main__":
    main()
