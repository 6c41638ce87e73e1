"""JSON lines of a task -> rows of a training batch, of which only the answer is learned.

Each line is an object ``{"prompt": ..., "completion": ...}``, or ``{"text": ..., "label": ...}``:
the prompt ``text``, and the completion ``label`` behind a space, as ``bitinfer eval`` asks for it.
Nothing here knows torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import TrainingError
from bitinfer.text_file import JsonLine, read_json_lines
from bitinfer.tokenizer import Tokenizer
from bitinfer.train.config import TrainConfig
from bitinfer.train.data import IGNORED


class Example(NamedTuple):
    """What is given, what is to be answered, and where it stands, for messages."""

    prompt: str
    completion: str
    where: str


def read_tasks(path: Path) -> list[Example]:
    """The examples of a JSON lines file.

    Raises:
        DataError: it cannot be read, holds no example, or a line is none (names it).
    """
    return [_example(line) for line in read_json_lines(path)]


def _example(line: JsonLine) -> Example:
    if "text" in line.values:
        label = line.value("label")
        if not isinstance(label, str) and type(label) is not int:
            raise line.error("label", "a text or a whole number")
        return Example(line.text("text"), f" {label}", line.where)
    if not line.text("completion"):
        raise line.error("completion", "a text that is not empty")
    return Example(line.text("prompt"), line.text("completion"), line.where)


class TaskRows:
    """Rows of examples, one in a row, out of one shuffled pass over them after another.

    "<s>" and the like are plain text in them. The tokenizer's BOS stands in front where it puts
    one, its end token behind each completion.

    Attributes:
        length: Tokens of a row: those of the longest example but its last.
    """

    def __init__(
        self, examples: Sequence[Example], tokenizer: Tokenizer, context_length: int, seed: int
    ) -> None:
        """Encode the examples.

        Raises:
            TrainingError: an example is longer than ``context_length`` (names it).
        """
        self._seed = seed
        end = tokenizer.encode(tokenizer.eos_token, parse_special=True)
        encoded = [_encoded(example, tokenizer, end) for example in examples]
        self._ids = [ids for ids, _ in encoded]
        self._starts = [start for _, start in encoded]
        lengths = [len(ids) - 1 for ids in self._ids]
        self.length = max(lengths)
        if self.length > context_length:
            raise TrainingError(
                f"{examples[int(np.argmax(lengths))].where}: expected at most {context_length}"
                f" tokens, got {self.length}: shorten it, or give a larger context_length"
            )

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows ``first`` up to ``first + count``.

        Returns:
            int64 (count, 2, length), fresh: token ids, and the id to learn at each; IGNORED is
            padding in the former, and what is not to be learned in the latter.
        """
        batch = np.full((count, 2, self.length), IGNORED, dtype=np.int64)
        for row, index in zip(batch, self._indices(first, count), strict=True):
            ids, start = self._ids[index], self._starts[index]
            row[0, : len(ids) - 1] = ids[:-1]
            row[1, start - 1 : len(ids) - 1] = ids[start:]
        return batch

    def _indices(self, first: int, count: int) -> Iterator[int]:
        """Examples of the endless stream, from its ``first`` on."""
        for number in range(first // len(self._ids), (first + count - 1) // len(self._ids) + 1):
            keys = np.random.PCG64([self._seed, number]).random_raw(len(self._ids))
            order = np.argsort(keys, kind="stable")
            begin = number * len(self._ids)
            yield from order[max(first - begin, 0) : max(first + count - begin, 0)].tolist()


def task_rows(config: TrainConfig, tokenizer: Tokenizer) -> TaskRows | None:
    """The rows of a run that learns examples; None of one that learns texts.

    Raises:
        DataError: see `read_tasks`.
        TrainingError: an example is too long.
    """
    if config.task is None:
        return None
    return TaskRows(read_tasks(config.task), tokenizer, config.context_length, config.seed)


def _encoded(
    example: Example, tokenizer: Tokenizer, end: list[int]
) -> tuple[NDArray[np.int64], int]:
    """Token ids of an example, and which of them is the first to learn.

    That is the first that is not as in the prompt alone: a token may hold the end of the prompt
    and the beginning of the completion.
    """
    alone = tokenizer.encode(example.prompt, add_special_tokens=True)
    whole = tokenizer.encode(example.prompt + example.completion, add_special_tokens=True)
    pairs = enumerate(zip(alone, whole, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(alone), len(whole)))
    start = min(common, len(whole) - 1)
    return np.array([*whole, *end], dtype=np.int64), max(start, 1)
