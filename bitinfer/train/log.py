"""The log of a run: a JSON object a step in ``log.jsonl``; the same as a table in ``log.csv``."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bitinfer.errors import TrainingError
from bitinfer.formats.new_file import replace_file


@dataclass(frozen=True)
class StepRecord:
    """What is known of a step.

    Attributes:
        step: From 1.
        tokens: Read until now, with the padding of examples.
        loss: Mean over the step's tokens, in nats (of a ``loss_fn``: what that gives).
        grad_norm: Of all gradients, before clipping.
        learning_rate, weight_decay: Of this step.
        tokens_per_s: In this step.
        validation: Mean loss per token of each validation file, where it was measured.
    """

    step: int
    tokens: int
    loss: float
    grad_norm: float
    learning_rate: float
    weight_decay: float
    tokens_per_s: float
    validation: dict[str, float] = field(default_factory=dict)


def perplexity(loss: float) -> float:
    """Of a mean loss in nats."""
    return math.exp(loss) if loss < 700 else math.inf


class RunLog:
    """The files of a run's log."""

    def __init__(self, folder: Path, last_step: int) -> None:
        """Go on after ``last_step``: what was written of later steps, which come again, is cut off.

        Raises:
            TrainingError: the files cannot be read or written.
        """
        self.path = folder / "log.jsonl"
        self.records = [record for record in read_log(folder) if record.step <= last_step]
        try:
            replace_file(self.path, "".join(map(_line, self.records)))
            self._file = self.path.open("ab", buffering=0)
        except OSError as cause:
            raise self._unwritten(cause) from None

    def add(self, record: StepRecord) -> None:
        """Append the record of a step.

        Raises:
            TrainingError: it cannot be written.
        """
        self.records.append(record)
        line = _line(record).encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as cause:
            raise self._unwritten(cause) from None

    def keep(self) -> None:
        """Make sure that what was added is on the disk, and write the table.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            os.fsync(self._file.fileno())
            replace_file(self.path.with_suffix(".csv"), _table(self.records))
        except OSError as cause:
            raise self._unwritten(cause) from None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _unwritten(self, cause: OSError) -> TrainingError:
        return TrainingError(f"{self.path}: cannot be written: {cause.strerror}")


def read_log(folder: Path) -> list[StepRecord]:
    """The records of a run; a line that was torn by a crash ends them.

    Raises:
        TrainingError: the file is there, but cannot be read.
    """
    path = folder / "log.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as cause:
        raise TrainingError(f"{path}: cannot be read: {cause}") from None
    records = []
    for line in lines:
        try:
            records.append(StepRecord(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return records


def _line(record: StepRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def _table(records: Sequence[StepRecord]) -> str:
    """CSV: a row a step; a column of loss and of perplexity for each validation file."""
    names = list(dict.fromkeys(name for record in records for name in record.validation))
    plain = [name for name in StepRecord.__dataclass_fields__ if name != "validation"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *(f"{what} {name}" for name in names for what in _MEASURES)])
    for record in records:
        row: list[Any] = [getattr(record, name) for name in plain]
        for name in names:
            loss = record.validation.get(name)
            row += ["", ""] if loss is None else [loss, perplexity(loss)]
        writer.writerow(row)
    return text.getvalue()


_MEASURES = ("loss", "perplexity")
