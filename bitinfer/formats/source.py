"""``TensorSource``: what families and conversion ask of a checkpoint, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer import pooling
from bitinfer.config import ModelConfig

TRITS = "TRITS"  # dtype of a matrix whose source decodes it to trits and scales
# Files beside the weights that a packed folder keeps, where the checkpoint has them.
SIDE_FILES = (
    *("config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"),
    *("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *pooling.FILES,
)


class StoredTensor(Protocol):
    """A tensor as it is stored; ``str()`` gives dtype and shape for messages."""

    @property
    def dtype(self) -> str:
        """The safetensors name of its dtype, or ``TRITS``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


class TensorSource(Protocol):
    """The tensors of a checkpoint by their stored names."""

    @property
    def path(self) -> Path:
        """The folder or file, for messages."""

    @property
    def config(self) -> ModelConfig:
        """What the checkpoint says of the model."""

    @property
    def is_binary(self) -> bool:
        """Whether the types of the tensors say that no weight of ``TRITS`` is 0."""

    @property
    def scale_groups(self) -> Mapping[str, int]:
        """How the scales of ``TRITS`` lie, as traits of the spec; {}: each matrix has one."""

    @property
    def float_activations(self) -> bool:
        """Whether ``TRITS`` are known to have been trained without int8 activations."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for the user on what it left open or has wrong."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Stored name to ``StoredTensor``."""

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor: read-only uint8 ``(size,)``."""

    def path_of(self, name: str) -> Path:
        """The file that holds a tensor."""

    def contents(self) -> Mapping[str, NDArray[np.uint8]]:
        """File name to its bytes, of all files that hold weights."""

    def side_files(self) -> Mapping[str, bytes]:
        """Name to content of the ``SIDE_FILES`` that it has."""
