"""What a run needs before its first step: tokenizer, tokens, model. What is there is not remade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend

from bitinfer.errors import ConfigError, TrainingError
from bitinfer.tokenizer import Tokenizer
from bitinfer.tokenizer_file import read_tokenizer, tokenizer_file
from bitinfer.train.config import TrainConfig
from bitinfer.train.data import (
    PackedRows,
    TokenFile,
    parse_source,
    token_path,
    validation_rows,
    write_tokens,
)
from bitinfer.train.new_model import check_ternary, is_ternary, new_model, start_model
from bitinfer.train.new_tokenizer import train_tokenizer
from bitinfer.train.run_folder import RunFolder
from bitinfer.train.tasks import task_rows

_MOST_TOKENS = 1 << 24  # of a tokenizer; a model's vocabulary is checked against its own size


class Rows(Protocol):
    """What a run learns: `data.PackedRows`, or something like it."""

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows ``first`` up to ``first + count``: int64 (count, length), a function of these alone.

        A token IGNORED is padding: nothing is learned of it.
        """


@dataclass(frozen=True)
class Prepared:
    """What a run begins with.

    Attributes:
        model: In fp32, on the CPU.
        turns_ternary: Whether its projections are still to be replaced, as the config says.
        rows: To learn.
        validation: Name of each validation file -> its rows (rows, length).
    """

    model: Any
    turns_ternary: bool
    rows: Rows
    validation: Mapping[str, NDArray[np.int64]]


def prepare(config: TrainConfig, folder: RunFolder, model: Any, rows: Rows | None) -> Prepared:
    """Make what is missing in the folder of a run, and read all of it.

    Args:
        config: Of the run.
        folder: Of the run.
        model: To train; None: what the config says.
        rows: To learn; None: the config's data.

    Raises:
        BitinferError: a text, tokenizer, model or setting is refused, or the disk is full.
    """
    sources = [parse_source(text) for text in config.data if config.task is None]
    if rows is None and not config.data:
        raise ConfigError("data: expected a text file or more to train on, got none")
    try:
        folder.tokens.mkdir(exist_ok=True)
    except OSError as cause:
        raise TrainingError(f"{folder.tokens}: cannot be made: {cause.strerror}") from None
    _take_tokenizer(config, [path for path, _ in sources], folder)
    tokenizer = Tokenizer.load(folder.tokenizer, vocab_size=_MOST_TOKENS)
    encoder = _Encoder(folder, tokenizer)
    rows = task_rows(config, tokenizer) if rows is None else rows
    turns_ternary = model is None and config.linear != "full"
    if model is None and config.start is not None:
        model = start_model(Path(config.start))
        turns_ternary = turns_ternary and not is_ternary(model)
    elif model is None:
        model = new_model(config, tokenizer.vocab_size, tokenizer.bos_token_id, encoder.eos)
    if turns_ternary:
        check_ternary(config, model)
    tokenizer.check_fits(
        model.config.vocab_size, str(config.tokenizer or config.start or folder.tokenizer)
    )
    if rows is None:
        files = [encoder.tokens(path, f"{i}-{path.stem}") for i, (path, _) in enumerate(sources)]
        counts = [count for _, count in sources]
        rows = PackedRows(list(zip(files, counts, strict=True)), config.context_length, config.seed)
    validation = {
        _name(path, config.validation): validation_rows(
            encoder.tokens(Path(path), f"validation-{i}-{Path(path).stem}"), config.context_length
        )
        for i, path in enumerate(config.validation)
    }
    return Prepared(model, turns_ternary, rows, validation)


def _take_tokenizer(config: TrainConfig, sources: Sequence[Path], folder: RunFolder) -> None:
    given = config.tokenizer or config.start
    if given is not None:
        folder.take_tokenizer(Path(given))
    elif sources:
        train_tokenizer(sources, config.vocab_size, folder.tokenizer)
    else:
        raise ConfigError("tokenizer: expected a folder, there is no text to train one on")


def _name(path: str, paths: Sequence[str]) -> str:
    """The file's name, or the whole path where another has that name too."""
    names = [Path(other).name for other in paths]
    name = Path(path).name
    return name if names.count(name) == 1 else path


class _Encoder:
    """Texts to token files, with the tokenizer in the run's folder."""

    def __init__(self, folder: RunFolder, tokenizer: Tokenizer) -> None:
        path = tokenizer_file(folder.tokenizer)
        assert path is not None  # it has been loaded from there
        self._backend: Backend = read_tokenizer(path, f"{path.name} in {folder.tokenizer}")
        self._backend.no_truncation()
        self._backend.no_padding()
        eos = self._backend.token_to_id(tokenizer.eos_token)
        if eos is None:
            raise TrainingError(
                f"{folder.tokenizer}: expected an end token, got none: name it as eos_token in"
                " tokenizer_config.json"
            )
        self.eos: int = eos
        self._bos, self._vocab_size = tokenizer.bos_token_id, tokenizer.vocab_size
        self._folder = folder.tokens

    def tokens(self, source: Path, name: str) -> TokenFile:
        """The tokens of a text, which are kept under ``name``."""
        target = token_path(self._folder, name, self._vocab_size)
        write_tokens(source, target, self._backend, self._bos, self.eos)
        return TokenFile.open(target)
