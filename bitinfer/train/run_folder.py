"""The folder of a run.

run.json       the config: written first, and what a resumed run must agree with
tokenizer/     a copy of the tokenizer, or the one that was trained
tokens/        the texts as tokens
checkpoint.pt  weights, state of the optimizer, step
log.jsonl      a line a step; log.csv is the same as a table
model/         the model, when the run is done
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bitinfer.errors import ConfigError, TrainingError
from bitinfer.formats.new_file import replace_file
from bitinfer.formats.new_folder import new_folder
from bitinfer.formats.source import SIDE_FILES
from bitinfer.json_file import read_json_object
from bitinfer.tokenizer_file import tokenizer_file
from bitinfer.train.config import TrainConfig, check_same


class RunFolder:
    """Names of what lies in a run's folder, and what may be done with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "run.json"
        self.tokenizer = path / "tokenizer"
        self.tokens = path / "tokens"
        self.checkpoint = path / "checkpoint.pt"
        self.model = path / "model"

    def read_config(self) -> TrainConfig:
        """The config that the run began with.

        Raises:
            TrainingError: there is no run.
            ConfigError: run.json is damaged.
        """
        if not self.config.exists():
            raise TrainingError(f"{self.path}: expected the folder of a run, got no run.json in it")
        return TrainConfig.from_mapping(
            read_json_object(self.config, ConfigError), str(self.config)
        )

    def begin(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder of a new run, or see that ``config`` is that of the run in it.

        Raises:
            TrainingError: there is something in it, or no run to resume, or it cannot be written.
            ConfigError: the run began with another config.
        """
        if resume:
            check_same(self.read_config(), config, self.path)
            return
        if self.config.exists():
            raise TrainingError(
                f"{self.path}: expected a new folder, got one with a run: resume it"
                " (--resume), or choose another folder"
            )
        try:
            self.path.mkdir(exist_ok=True)
            found = next((path.name for path in self.path.iterdir() if path != self._lock), None)
            if found is not None:
                raise TrainingError(
                    f"{self.path}: expected a new folder, got one that holds {found}: choose"
                    " another place"
                )
            replace_file(self.config, config.to_json() + "\n")
        except OSError as cause:
            raise TrainingError(f"{self.path}: cannot be written: {cause.strerror}") from None

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the folder must be there.

        Raises:
            TrainingError: another process trains in it.
        """
        lock = FileLock(self._lock, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise TrainingError(f"{self.path}: another process trains in this folder") from None
        try:
            yield
        finally:
            lock.release()

    def take_tokenizer(self, source: Path) -> None:
        """Copy the tokenizer's files of a model folder, unless they are there.

        Raises:
            TrainingError: there is no tokenizer.
            PackedFileError: it cannot be copied.
        """
        if self.tokenizer.exists():
            return
        if tokenizer_file(source) is None:
            raise TrainingError(
                f"{source}: expected a folder with tokenizer.json or tokenizer.model, got none"
            )
        with new_folder(self.tokenizer, (), "tokenizer.json") as fresh:
            for name in SIDE_FILES:
                if name != "config.json" and (source / name).is_file():
                    shutil.copyfile(source / name, fresh / name)
