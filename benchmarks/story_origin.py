"""A classification task from story texts: from which collection does a passage come?

    python benchmarks/story_origin.py TEXTS OUT

TEXTS holds tinystories.txt, ccby.txt and fairytale.txt, a document between ``<s>`` and ``</s>``.
OUT gets train.jsonl and test.jsonl, with as many lines ``{"text": ..., "label": ...}`` of each
label:

    label    collection
    tiny     stories written by a language model with a small child's words
    picture  picture books of African Storybook and StoryWeaver
    fairy    fairy tales of Project Gutenberg

What would give an origin away without reading is taken out: chat prompts and line breaks, and a
passage begins and ends anywhere between two words. A document is either in train or in test.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from bitinfer.formats.new_file import replace_file
from bitinfer.text_file import END, read_documents

ORIGINS = {"tiny": "tinystories.txt", "picture": "ccby.txt", "fairy": "fairytale.txt"}
_PROMPT_END = "<|assistant|>"
_TEST_SHARE = 0.2  # of the documents


def passages(document: str, words: int) -> list[str]:
    """The pieces of ``words`` words of a document's story, without its first and last few words."""
    story = document.rpartition(_PROMPT_END)[2].replace(END, " ").split()
    begin = len(story) % words // 2
    whole = range(begin, len(story) - words + 1, words)
    return [" ".join(story[at : at + words]) for at in whole]


def split(folder: Path, label: str, seed: int) -> tuple[list[str], list[str]]:
    """The documents of a label, shuffled: those that are learned, and those that are held out.

    Raises:
        DataError: the text cannot be read.
    """
    documents = list(read_documents(folder / ORIGINS[label]))
    random.Random(f"{seed} {label}").shuffle(documents)
    held = round(_TEST_SHARE * len(documents))
    return documents[held:], documents[:held]


def make_task(folder: Path, *, per_label: int, words: int, seed: int) -> dict[str, list[str]]:
    """The lines of ``train`` and ``test``, shuffled.

    Args:
        folder: Of the texts.
        per_label: Lines of each label in train; a quarter as many are in test.
        words: Of a passage.
        seed: Of the choice.

    Raises:
        DataError: a text cannot be read.
        ValueError: there are too few passages.
    """
    task: dict[str, list[str]] = {"train": [], "test": []}
    for label, name in ORIGINS.items():
        learned, held = split(folder, label, seed)
        rng = random.Random(f"{seed} {label} passages")
        for part, own, count in (("test", held, per_label // 4), ("train", learned, per_label)):
            found = [passage for document in own for passage in passages(document, words)]
            if len(found) < count:
                raise ValueError(f"{name}: expected {count} passages for {part}, got {len(found)}")
            chosen = rng.sample(found, count)
            task[part] += [json.dumps({"text": passage, "label": label}) for passage in chosen]
    for lines in task.values():
        random.Random(seed).shuffle(lines)
    return task


def main() -> None:
    """Write the two files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-label", type=int, default=1200)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    task = make_task(given.texts, per_label=given.per_label, words=given.words, seed=given.seed)
    given.out.mkdir(exist_ok=True)
    for part, lines in task.items():
        replace_file(given.out / f"{part}.jsonl", "\n".join(lines) + "\n")
        print(f"{given.out / part}.jsonl: {len(lines)} passages of {given.words} words")


if __name__ == "__main__":
    main()
