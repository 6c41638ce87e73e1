"""``TensorSource``: what families and conversion ask of a checkpoint, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class StoredTensor(Protocol):
    """A tensor as it is stored; ``str()`` gives dtype and shape for messages."""

    @property
    def dtype(self) -> str:
        """The safetensors name of its dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


class TensorSource(Protocol):
    """The tensors of a checkpoint by their stored names."""

    @property
    def path(self) -> Path:
        """The folder or file, for messages."""

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Stored name to ``StoredTensor``."""

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor: read-only uint8 ``(size,)``."""

    def path_of(self, name: str) -> Path:
        """The file that holds a tensor."""

    def contents(self) -> Mapping[str, NDArray[np.uint8]]:
        """File name to its bytes, of all files that hold weights."""
