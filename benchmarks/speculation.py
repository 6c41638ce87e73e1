"""Drafts by n-grams and a small model: how many are right, and what they save on a model's shape.

    python benchmarks/speculation.py                              # how many are right
    python benchmarks/speculation.py --model MODEL -t 2 --record  # and the speed of MODEL

A reply is replayed: the model runs as ever, but the token that comes next is the text's. So drafts
are as often right as on that text, and MODEL may have random weights. Three kinds of replies to a
piece of text: its continuation; a copy with a word replaced and sentences left out; an answer that
quotes every third sentence. Two more are the embedded model's own continuations, for n-grams alone.
Token ids are of the embedded model's vocabulary: it is the small model that drafts, too.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench_model import HERE, write_record
from turns import ratio, take_turns

from bitinfer.engine import Engine, KvCache
from bitinfer.generate import generate_step
from bitinfer.machine import machine_facts
from bitinfer.model import Model
from bitinfer.prefix_cache import PrefixCache
from bitinfer.runtime import active_isa
from bitinfer.speculation import DraftModel, DraftSource, Pace, PromptLookup, Speculator

KINDS = ("continuing", "editing", "quoting")
RUN_TOKENS = (1, 2, 3, 5, 9)  # the last token, and each length of a draft
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Drafter:
    """What makes drafts; ``begin`` takes a prompt."""

    name: str
    hopes: Sequence[float]
    begin: Callable[[Sequence[int]], DraftSource]


N_GRAMS = Drafter("n-grams", PromptLookup.hopes, PromptLookup)


def drafting_model(model: Model) -> Drafter:
    """Drafts of a model's likeliest tokens."""
    caches, size = PrefixCache(model.engine), model.engine.vocab_size
    return Drafter(
        model.path.name,
        DraftModel.hopes,
        lambda prompt: DraftModel(caches, prompt, lambda logits, _: int(logits.argmax()), size),
    )


class Always(Pace):
    """Drafts so many tokens at every chance."""

    def __init__(self, count: int, hopes: Sequence[float]) -> None:
        """Take the length of all drafts."""
        super().__init__(hopes)
        self._count = count

    def length(self, outlook: int, most: int) -> int:
        """The same always."""
        return min(self._count, most)

    def learn(self, outlook: int, drafted: int, accepted: int) -> None:
        """Nothing is learnt."""

    def time(self, drafted: int, seconds: float) -> None:
        """Nothing is timed."""


@dataclass(frozen=True)
class Task:
    """A reply to replay after a prompt."""

    kind: str
    prompt: list[int]
    reply: list[int]


def text_tasks(model: Model, text: str, pieces: int, prompt: int, reply: int) -> list[Task]:
    """Tasks of each kind for the first ``pieces`` pieces of a text."""
    tasks = []
    encode, decode = model.tokenizer.encode, model.tokenizer.decode
    ids = encode(text)
    for start in range(0, min(len(ids) - prompt - reply, (pieces - 1) * prompt) + 1, prompt):
        piece = ids[start : start + prompt]
        told = decode(piece)
        tasks += [
            Task("continuing", piece, ids[start + prompt : start + prompt + reply]),
            Task("editing", piece, encode(_edited(told))[:reply]),
            Task("quoting", piece, encode(_quoted(told))[:reply]),
        ]
    return tasks


def own_tasks(model: Model, tasks: list[Task]) -> list[Task]:
    """The model's own replies to the prompts of ``tasks`` that continue."""
    made = []
    for task in (task for task in tasks if task.kind == "continuing"):
        for kind, temperature in (("own, greedy", 0.0), ("own, sampled", None)):
            options: Any = {"temperature": temperature, "seed": 1, "speculate": "off"}
            done = model.generate(task.prompt, max_tokens=len(task.reply), **options)
            made.append(Task(kind, task.prompt, list(done.token_ids)))
    return made


def _edited(text: str) -> str:
    """With the commonest long word replaced, and without every fourth sentence."""
    words = Counter(re.findall(r"\b[A-Za-z]{4,}\b", text))
    text = re.sub(rf"\b{words.most_common(1)[0][0]}\b", "something", text) if words else text
    return " ".join(s for n, s in enumerate(_SENTENCES.split(text)) if n % 4 != 3)


def _quoted(text: str) -> str:
    """Words of one's own around every third sentence."""
    quotes = [s for n, s in enumerate(_SENTENCES.split(text)) if n % 3 == 1]
    words = ("First, it says", "After that we read", "And the text goes on", "At last there is")
    said = (f'{w}: "{q}"' for w, q in zip(itertools.cycle(words), quotes, strict=False))
    return "There are some points. " + " ".join(said)


def replay(engine: Engine, cache: KvCache, task: Task, speculator: Speculator | None) -> float:
    """Run a task, the prompt's last token first; return the tokens per second."""
    following = iter(task.reply)
    missing = task.prompt[cache.length : -1]
    if missing:
        engine.forward([missing], [cache], logits="none")
    cache.trim(len(task.prompt) - 1)
    start = time.perf_counter()
    with closing(
        generate_step(
            engine,
            task.prompt[-1:],
            cache,
            lambda _: next(following),
            speculator=speculator,
        )
    ) as steps:  # type: ignore[type-var]  # a generator
        assert list(itertools.islice(steps, len(task.reply))) == task.reply
    return len(task.reply) / (time.perf_counter() - start)


def measure_right(
    model: Model, name: str, tasks: list[Task], drafter: Drafter = N_GRAMS
) -> list[dict[str, Any]]:
    """How many drafts are right, and the tokens of a run, for each kind and length."""
    records = []
    for kind in dict.fromkeys(task.kind for task in tasks):
        mine = [task for task in tasks if task.kind == kind]
        tokens = sum(len(task.reply) for task in mine)
        for count in (2, 4, 8):
            drafted = accepted = 0
            for task in mine:
                pace = Always(count, drafter.hopes)
                speculator = Speculator(drafter.begin(task.prompt), pace)
                replay(model.engine, model.engine.new_cache(), task, speculator)
                drafted += speculator.drafted
                accepted += speculator.accepted
            records.append(
                {
                    "what": "right",
                    "drafts": drafter.name,
                    "text": name,
                    "kind": kind,
                    "tokens": tokens,
                    "draft": count,
                    "drafted": drafted,
                    "accepted": accepted,
                    "tokens_per_run": tokens / (tokens - accepted),
                }
            )
    return records


def measure_speed(
    engine: Engine, name: str, tasks: list[Task], rounds: int, drafter: Drafter = N_GRAMS
) -> list[dict[str, Any]]:
    """Tokens per second with drafts and without, in turns, for the first task of each kind."""
    pace = Pace(drafter.hopes)
    first: dict[str, Task] = {}
    for task in tasks:
        first.setdefault(task.kind, task)
    runs: dict[tuple[str, str], Callable[[], float]] = {}
    speculators: dict[str, Speculator] = {}
    for kind, task in first.items():
        cache = engine.new_cache()

        def drafting(kind: str, task: Task, cache: KvCache) -> float:
            speculators[kind] = Speculator(drafter.begin(task.prompt), pace)
            return replay(engine, cache, task, speculators[kind])

        runs[kind, "off"] = partial(replay, engine, cache, task, None)
        runs[kind, "auto"] = partial(drafting, kind, task, cache)
    turns = take_turns(runs, rounds)
    return [
        {
            "what": "speed",
            "drafts": drafter.name,
            "text": name,
            "kind": kind,
            "tokens": len(task.reply),
            "depth": len(task.prompt),
            "drafted": speculators[kind].drafted,
            "accepted": speculators[kind].accepted,
            "tokens_per_s_off": turns.rates[kind, "off"],
            "tokens_per_s_auto": turns.rates[kind, "auto"],
            "ratio": asdict(ratio(turns.rates[kind, "auto"], turns.rates[kind, "off"])),
            "others_cpu_share": turns.others_cpu_share,
        }
        for kind, task in first.items()
    ]


def measure_costs(engine: Engine, depth: int, rounds: int) -> list[dict[str, Any]]:
    """What a run of several tokens takes, in runs of one."""
    cache = engine.new_cache()
    engine.forward([[1] * depth], [cache], logits="none")

    def rate(tokens: int) -> float:
        start = time.perf_counter()
        engine.forward([[1] * tokens], [cache], logits="all")
        taken = time.perf_counter() - start
        cache.trim(depth)
        return 1 / taken

    turns = take_turns({tokens: partial(rate, tokens) for tokens in RUN_TOKENS}, 4 * rounds)
    return [
        {
            "what": "cost",
            "tokens": tokens,
            "depth": depth,
            "steps": asdict(ratio(turns.rates[1], turns.rates[tokens])),
            "others_cpu_share": turns.others_cpu_share,
        }
        for tokens in RUN_TOKENS
    ]


def table(records: list[dict[str, Any]]) -> str:
    """The records as lines of Markdown."""
    lines = []
    for record in records:
        if record["what"] == "right":
            lines.append(
                f"| {record['drafts']} | {record['text']} | {record['kind']} | {record['draft']} | "
                f"{record['accepted'] / max(1, record['drafted']):.0%} | "
                f"{record['tokens_per_run']:.2f} |"
            )
        elif record["what"] == "speed":
            ratios = record["ratio"]
            lines.append(
                f"| {record['drafts']} | {record['text']} | {record['kind']} | {record['model']} | "
                f"{record['isa']} | "
                f"{record['accepted']} of {record['drafted']} | {ratios['median']:.2f} "
                f"({ratios['least']:.2f}-{ratios['largest']:.2f}) |"
            )
        else:
            lines.append(f"| run of {record['tokens']} tokens | {record['steps']['median']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, action="append", help="default: the docs")
    parser.add_argument("--model", type=Path, help="measure its speed too")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--pieces", type=int, default=12, help="of each text")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=300)
    parser.add_argument("-n", "--generated-tokens", type=int, default=96)
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--speed-only", action="store_true", help="do not count what is right")
    parser.add_argument("--record", action="store_true", help="add a file to records/speculation")
    args = parser.parse_args()
    docs = "\n".join(
        path.read_text("utf-8") for path in sorted((HERE.parent / "docs").glob("*.md"))
    )
    texts = {path.stem: path.read_text("utf-8") for path in args.text or ()} or {"docs": docs}
    length = args.prompt_tokens, args.generated_tokens
    records = []
    with Model.load("tales-14m", num_threads=1) as model:
        small = drafting_model(model)
        made = {name: text_tasks(model, text, args.pieces, *length) for name, text in texts.items()}
        if not args.speed_only:
            for name, tasks in made.items():
                records += measure_right(model, name, [*tasks, *own_tasks(model, tasks)])
                records += measure_right(model, name, tasks, small)
        if args.model is not None:
            context = sum(length) + 1
            engine = Engine.load(args.model, num_threads=args.threads, context_length=context)
            measured = measure_costs(engine, args.prompt_tokens, args.rounds)
            for (name, tasks), drafter in itertools.product(made.items(), (N_GRAMS, small)):
                measured += measure_speed(engine, name, tasks, args.rounds, drafter)
            facts = {"model": args.model.name, "packing": engine.packing}
            facts |= {"threads": engine.num_threads}
            records += [{**record, **facts} for record in measured]
    records = [{**record, "isa": active_isa(), **machine_facts(HERE)} for record in records]
    print(table(records))
    if args.record:
        print(write_record(records, "speculation"))


if __name__ == "__main__":
    main()
