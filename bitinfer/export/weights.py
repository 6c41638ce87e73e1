"""The weights of a model, packed, raw or GGUF, as exact trits, scales and float bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core
from bitinfer.convert import open_checkpoint
from bitinfer.errors import PackedFileError
from bitinfer.families.check import check_weights
from bitinfer.families.spec import DEFAULTS, HEAD_SCALE, check_spec
from bitinfer.formats.packed import PACKED_NAME, PackedFile, is_packed_folder

_PACKING = "i2"  # of a raw checkpoint's matrices on their way to trits


class Weights(Protocol):
    """A model's tensors, each made when it is asked for.

    Attributes:
        spec: The decoder's spec.
        name: Of the model.
        int8_head: The head is int8 and not the checkpoint's own.
        notes: What was mended when the model was read, each a line for the user.
    """

    spec: Mapping[str, Any]
    name: str
    int8_head: bool
    notes: Sequence[str]

    def dtype(self, name: str) -> str:
        """The safetensors dtype of a float tensor."""

    def chunks(self, name: str) -> Iterable[NDArray[Any]]:
        """The bytes of a float tensor in order, or of a scale."""

    def trits(self, name: str) -> tuple[NDArray[np.int8], np.float32]:
        """A ternary matrix, int8 (N, K) in {-1, 0, 1}, and its scale."""


def open_weights(path: Path) -> Weights:
    """Open a packed or a raw folder, or a GGUF file, and check it.

    Raises:
        BitinferError: it cannot be used as it is (see errors.py).
    """
    return _PackedWeights(path) if is_packed_folder(path) else _RawWeights(path)


class _PackedWeights:
    notes: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self._file = PackedFile(folder / PACKED_NAME)
        header = self._file.header
        self.spec: Mapping[str, Any] = {**DEFAULTS, **header.spec}
        check_spec(self.spec, str(self._file.path), PackedFileError)
        check_weights(self._file, self.spec)
        self._file.validate_codes()
        self.name = str(header.source.get("name") or folder.resolve().name)
        self.int8_head = HEAD_SCALE in self._file and not self.spec["tie_word_embeddings"]

    def dtype(self, name: str) -> str:
        return self._file.tensor(name)[1].upper()

    def chunks(self, name: str) -> Iterable[NDArray[Any]]:
        return [self._file.tensor(name)[0]]

    def trits(self, name: str) -> tuple[NDArray[np.int8], np.float32]:
        data, packing, (n, k) = self._file.tensor(name)
        scale = self._file.tensor(f"{name}_scale")[0].view(np.float32)[0]
        return _core.unpack(data, packing, n, k), scale


class _RawWeights:
    int8_head = False

    def __init__(self, path: Path) -> None:
        self._weights = open_checkpoint(path, _PACKING, "source")
        self.spec: Mapping[str, Any] = self._weights.plan.spec
        self.name = path.resolve().name
        self.notes: Sequence[str] = self._weights.source.notes

    def dtype(self, name: str) -> str:
        return self._weights.tensors[name][0]

    def chunks(self, name: str) -> Iterable[NDArray[Any]]:
        return self._weights.chunks(name)

    def trits(self, name: str) -> tuple[NDArray[np.int8], np.float32]:
        matrix = self._weights.ternary[name]
        (packed,) = self._weights.chunks(name)
        (scale,) = self._weights.chunks(f"{name}_scale")
        return _core.unpack(packed, _PACKING, matrix.n, matrix.k), scale[0]
