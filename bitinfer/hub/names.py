"""Names of models on the hub: ``owner/name[@revision][:file.gguf]``, and short ones."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DEFAULT_REVISION = "main"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(
    rf"({_PART}/{_PART})(?:@([A-Za-z0-9_][A-Za-z0-9_./-]{{0,199}}))?"
    r"(?::([A-Za-z0-9_][A-Za-z0-9_. -]{0,199}))?"
)
_T5_BYTES = 0.2  # of a ternary weight in the densest packing


@dataclass(frozen=True)
class ModelName:
    """A model on the hub.

    Attributes:
        repo: ``owner/name``.
        revision: A branch, a tag or a commit.
        file: A GGUF file, or a part of its name that no other has; None: as `choose_gguf` says.
    """

    repo: str
    revision: str = _DEFAULT_REVISION
    file: str | None = None

    def __str__(self) -> str:
        """As a user types it."""
        at = "" if self.revision == _DEFAULT_REVISION else f"@{self.revision}"
        return self.repo + at + (f":{self.file}" if self.file else "")


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model before it is pulled; None: not known.

    Attributes:
        repo: ``owner/name``.
        stored: How the hub has its weights: ``packed`` (2 bits), ``bf16``, or ``masters`` in floats
            of a width that is not known.
        licence: As its page names it.
        parameters: All of them.
        ternary_weights: How many of them are ternary.
        vocab_size: Tokens.
        hidden_size: Width of the embedding.
    """

    repo: str
    stored: str
    licence: str | None = None
    parameters: int | None = None
    ternary_weights: int | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None

    @property
    def download_bytes(self) -> int | None:
        """Bytes of the weights on the hub."""
        if self.parameters is None or self.ternary_weights is None:
            return None
        ternary = self.ternary_weights // 4 if self.stored == "packed" else 2 * self.ternary_weights
        return ternary + 2 * (self.parameters - self.ternary_weights)

    @property
    def memory_bytes(self) -> int | None:
        """Bytes that each token reads, which must fit in memory: t5 weights and an int8 head."""
        if self.ternary_weights is None or self.vocab_size is None or self.hidden_size is None:
            return None
        return int(self.ternary_weights * _T5_BYTES) + self.vocab_size * self.hidden_size


@functools.cache
def known_models() -> Mapping[str, KnownModel]:
    """Short name to model."""
    entries = json.loads(Path(__file__).with_name("known.json").read_text(encoding="utf-8"))
    return {name: KnownModel(**facts) for name, facts in entries.items()}


def parse_name(text: str) -> ModelName | None:
    """The model that ``text`` names, or None where it can be no name of one."""
    short = re.split("[@:]", text)[0]
    if short in known_models():
        text = known_models()[short].repo + text[len(short) :]
    match = _NAME.fullmatch(text)
    if match is None or re.search(r"\.\.|--|//", match[1]) or ".." in (match[2] or ""):
        return None
    return ModelName(match[1], match[2] or _DEFAULT_REVISION, match[3])
