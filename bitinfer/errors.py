"""Everything that bitinfer raises on purpose; each message is one line.

::

    BitinferError
    ├── CheckpointError        a raw checkpoint: missing, damaged, or not what its config says
    ├── ConfigError            config.json, generation_config.json or an environment variable
    ├── PackedFileError        a packed folder: damaged, too new, or not writable
    ├── ExportError            a model that another format cannot hold, or a file not writable
    ├── HubError               a model of the Hugging Face hub: not there, not allowed, or damaged
    ├── HistoryError           the database of conversations: not usable, damaged, or too new
    │   └── HistoryLookupError     a conversation or message that is not in it
    ├── TokenizerError         tokenizer files, or a chat template
    ├── UnsupportedIsaError    an instruction set that this machine or build lacks
    ├── RecordError            a file of benchmark records
    ├── DataError              a file of text or JSON lines to train or measure a model on
    ├── TrainingError          a run's folder, or a run that cannot go on
    ├── GrammarError           a grammar, regular expression or JSON schema (also a ValueError)
    ├── BatchError             a batch that cannot go on: its rows, its output or its model changed
    ├── SessionError           a file of keys and values that this model did not make
    ├── QueueFullError         a server that has too much to do; says when to come again
    └── PromptError            token ids that cannot be run (also a ValueError)
        └── ContextLengthError     more tokens than the context holds

A message names what, where, what was expected and got, and the mend if there is one:
``model.norm.weight: expected float (2560), got float (2559) in model.safetensors``. Misuse by a
caller (a wrong argument) is a plain ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations


class BitinferError(Exception):
    """Base of all errors that bitinfer raises for what comes from outside."""


class CheckpointError(BitinferError):
    """A checkpoint file is missing, damaged, or does not hold what its config declares."""


class ConfigError(BitinferError):
    """A config file or environment variable holds a value that cannot be used."""


class PackedFileError(BitinferError):
    """A packed folder cannot be read or written."""


class ExportError(BitinferError):
    """A model cannot be written in another format: it cannot hold it, or the file is refused."""


class HubError(BitinferError):
    """A model of the hub cannot be had: refused, missing, damaged on the way, or no room."""


class HistoryError(BitinferError):
    """The database of conversations cannot be read or written, or is not one."""


class HistoryLookupError(HistoryError):
    """A conversation or message that is asked for is not in the database."""


class TokenizerError(BitinferError):
    """Tokenizer files or a chat template cannot be used, or do not fit the model."""


class UnsupportedIsaError(BitinferError):
    """The instruction set asked for is unknown here or not usable on this machine."""


class RecordError(BitinferError):
    """A file of benchmark records cannot be read."""


class TrainingError(BitinferError):
    """A training run cannot begin, go on or be kept; names the file or the step."""


class DataError(BitinferError):
    """A file of text or of JSON lines cannot be read, or does not hold what is asked of it."""


class GrammarError(BitinferError, ValueError):
    """A grammar, regular expression or JSON schema is in error or cannot be followed."""


class SessionError(BitinferError):
    """A session file is damaged, or of another model."""


class BatchError(BitinferError):
    """A batch cannot begin or go on: its rows, its output or its model are not what they were."""


class QueueFullError(BitinferError):
    """Too many requests are waiting.

    Attributes:
        retry_after_s: When it is worth while to come again.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PromptError(BitinferError, ValueError):
    """Token ids that cannot be run: none at all, or outside the vocabulary."""


class ContextLengthError(PromptError):
    """More tokens than the context holds."""
