"""Session files: blocks of a KV cache, and the token ids whose keys and values lie in them.

A safetensors file of n blocks, none before its parent:

    blocks     U8  (n, block_bytes)   as they lie in memory
    parents    I32 (n,)               number of the block before, -1 at the beginning of a text
    lengths    I32 (n,)               ids in the block; all but the last of a text are full
    token_ids  I32 (sum of lengths,)
    digests    U8  (n, 32)            sha256 of the parent's digest, the ids and the block

and in its metadata ``format``, ``version`` and ``model``, which names what alone can use it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import SessionError
from bitinfer.formats.new_file import new_file
from bitinfer.formats.safetensors import SafetensorsFile, TensorInfo

_FORMAT, _VERSION = "bitinfer-session", "1"
_DIGEST_BYTES = 32
_MOST_BLOCKS = 1 << 20

Entry = tuple[int, tuple[int, ...], Callable[[], NDArray[np.uint8]]]  # parent, ids, its bytes


def write_session(path: Path, model: str, block_bytes: int, entries: Sequence[Entry]) -> None:
    """Write blocks to ``path``, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    count = len(entries)
    ids = np.array([i for _, token_ids, _ in entries for i in token_ids], "<i4")
    small = {
        "parents": np.array([parent for parent, _, _ in entries], "<i4"),
        "lengths": np.array([len(token_ids) for _, token_ids, _ in entries], "<i4"),
        "token_ids": ids,
    }
    shapes = {"blocks": ("U8", (count, block_bytes))}
    shapes |= {name: ("I32", array.shape) for name, array in small.items()}
    shapes |= {"digests": ("U8", (count, _DIGEST_BYTES))}
    header: dict[str, object] = {
        "__metadata__": {"format": _FORMAT, "version": _VERSION, "model": model}
    }
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + int(np.prod(shape)) * (4 if dtype == "I32" else 1)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)  # blocks begin at a multiple of 64
    digests: list[bytes] = []
    with new_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for parent, token_ids, data in entries:
            block = data()
            digests.append(_digest(digests[parent] if parent >= 0 else b"", token_ids, block))
            file.write(block.data)
        for array in small.values():
            file.write(array.tobytes())
        file.write(b"".join(digests))


class SessionFile:
    """A session file that was made by one model, mapped and checked but for the digests.

    Attributes:
        path: The file.
    """

    def __init__(
        self, path: Path, model: str, block_bytes: int, block_length: int, vocab_size: int
    ) -> None:
        """Map ``path`` and check all but the blocks' bytes.

        Args:
            path: The file.
            model: Who made it.
            block_bytes: Bytes of a block.
            block_length: Positions of a block.
            vocab_size: Token ids lie below it.

        Raises:
            SessionError: there is no such file, it is damaged, or another model made it.
        """
        self.path = path
        self._file = SafetensorsFile(path, SessionError)
        self._check_origin(model)
        count = self._file.tensors["blocks"].shape[0] if "blocks" in self._file.tensors else 0
        if not 0 < count <= _MOST_BLOCKS:
            raise self._refuse(f"blocks: expected 1 to {_MOST_BLOCKS} of them, got {count}")
        self._blocks = self._tensor("blocks", "U8", (count, block_bytes))
        self._parents = self._numbers("parents", count, -1, count - 1)
        self._lengths = self._numbers("lengths", count, 1, block_length)
        if (self._parents >= np.arange(count)).any():
            raise self._refuse("parents: expected each block after its parent")
        if (self._lengths[self._parents[self._parents >= 0]] < block_length).any():
            raise self._refuse(f"lengths: expected {block_length} ids in each parent")
        ids = self._numbers("token_ids", int(self._lengths.sum()), 0, vocab_size - 1)
        self._ids = np.split(ids, np.cumsum(self._lengths)[:-1])
        self._digests = self._tensor("digests", "U8", (count, _DIGEST_BYTES))

    def __iter__(self) -> Iterator[tuple[int, tuple[int, ...], NDArray[np.uint8]]]:
        """(parent, token ids, bytes) of the blocks in turn.

        Raises:
            SessionError: a block is not what was written.
        """
        for number, (parent, ids, block) in enumerate(
            zip(self._parents.tolist(), self._ids, self._blocks, strict=True)
        ):
            token_ids = tuple(ids.tolist())
            before = self._digests[parent].tobytes() if parent >= 0 else b""
            if _digest(before, token_ids, block) != self._digests[number].tobytes():
                raise self._refuse(f"block {number}: its digest differs: the file is damaged")
            yield parent, token_ids, block

    def _check_origin(self, model: str) -> None:
        told = self._file.metadata
        if (kind := told.get("format")) != _FORMAT:
            raise self._refuse(
                f"format: expected {_FORMAT}, got {kind}: it is another kind of file"
            )
        if (version := told.get("version")) != _VERSION:
            raise self._refuse(f"version: expected {_VERSION}, got {version}")
        if told.get("model") != model:
            raise self._refuse("model: another model, or another kv_cache, made it: delete it")

    def _tensor(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        info: TensorInfo | None = self._file.tensors.get(name)
        if info is None or (info.dtype, info.shape) != (dtype, shape):
            raise self._refuse(f"{name}: expected {dtype} {shape}, got {info or 'nothing'}")
        view = self._file.view(name)
        return view.reshape(shape) if dtype == "U8" else view

    def _numbers(self, name: str, count: int, low: int, high: int) -> NDArray[np.int32]:
        """A tensor of whole numbers from ``low`` to ``high``."""
        numbers = np.frombuffer(self._tensor(name, "I32", (count,)).tobytes(), "<i4")
        if count and not low <= numbers.min() <= numbers.max() <= high:
            raise self._refuse(f"{name}: expected whole numbers from {low} to {high}")
        return numbers.astype(np.int32)

    def _refuse(self, text: str) -> SessionError:
        return SessionError(f"{self.path}: {text}")


def _digest(before: bytes, token_ids: Sequence[int], block: NDArray[np.uint8]) -> bytes:
    found = hashlib.sha256(before + np.array(token_ids, "<i4").tobytes())
    found.update(np.ascontiguousarray(block).data)
    return found.digest()
