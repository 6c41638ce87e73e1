"""safetensors: our own strict reader over a file mapping, for one file or a sharded checkpoint.

A file is a u64 header length (little-endian), a JSON header ``name -> {dtype, shape,
data_offsets}`` with an optional ``__metadata__`` of strings, and the tensors' bytes. Everything in
the header is checked against the file before a tensor is touched: sizes, dtypes, offsets that
overlap or leave holes, names that stand twice. Source: safetensors, README.md, "Format".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.config import ModelConfig
from bitinfer.errors import BitinferError, CheckpointError
from bitinfer.formats.file_mapping import map_file
from bitinfer.formats.source import SIDE_FILES
from bitinfer.json_file import impostor, parse_json_object, read_json_object, shown

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
DTYPE_BYTES = (
    dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1)
    | dict.fromkeys(("U16", "I16", "F16", "BF16"), 2)
    | dict.fromkeys(("U32", "I32", "F32"), 4)
    | dict.fromkeys(("U64", "I64", "F64"), 8)
)


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: bytes ``begin`` to ``end`` of the data that follow the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.dtype} {describe_shape(self.shape)}"


class SafetensorsFile:
    """A mapped safetensors file whose header has been checked.

    Attributes:
        path: The file.
        tensors: Name to place, in the order of the header.
        metadata: The header's ``__metadata__``, empty if it has none.
        data_start: Offset of the first tensor byte in the file.
    """

    def __init__(self, path: Path, error: type[BitinferError] = CheckpointError) -> None:
        """Map ``path`` read-only and check its header.

        Raises:
            BitinferError: of class ``error``: the file is missing, a directory, unreadable, empty,
                truncated, something else (Git LFS pointer, HTML page, GGUF …), or breaks a rule of
                the format.
        """
        self.path = path
        self._error = error
        self._bytes = map_file(path, "safetensors", error)
        header = self._header()
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise self._refuse("__metadata__: expected an object of strings, got something else")
        self.metadata: Mapping[str, str] = metadata
        self.tensors: Mapping[str, TensorInfo] = {
            name: self._tensor_info(name, entry) for name, entry in header.items()
        }
        self._check_layout()

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor: read-only uint8 ``(size,)``, no copy; it keeps the file mapped."""
        info = self.tensors[name]
        return self._bytes[self.data_start + info.begin : self.data_start + info.end]

    def content(self) -> NDArray[np.uint8]:
        """The whole file as read-only bytes, no copy."""
        return self._bytes

    def _refuse(self, text: str) -> BitinferError:
        return self._error(f"{text} in {self.path}: the file is damaged, get it again")

    def _header(self) -> dict[str, Any]:
        size = len(self._bytes)
        head = self._bytes[:64].tobytes()
        length = int.from_bytes(head[:8], "little")
        if head[8:9] != b"{":  # the format demands it, so only now look for what else it may be
            found = impostor(head)
            what = found[0] if found else f"{size} bytes without a header of that format"
            mend = found[1] if found else "download it again"
            raise self._error(f"{self.path}: expected safetensors, got {what}: {mend}")
        if length > MAX_HEADER_BYTES:
            raise self._refuse(f"header: expected at most {MAX_HEADER_BYTES} bytes, got {length}")
        self.data_start = 8 + length
        if size < self.data_start:
            raise self._truncated("header", self.data_start, size)
        header = self._bytes[8 : self.data_start].tobytes()
        try:
            return parse_json_object(header, f"{self.path}: header", self._error)
        except BitinferError as cause:
            raise self._error(f"{cause}: download it again") from None

    def _tensor_info(self, name: str, entry: object) -> TensorInfo:
        where = f"{shown(name)}: header entry"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._refuse(f"{where}: expected dtype, shape and data_offsets, got others")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
            choices = ", ".join(DTYPE_BYTES)
            raise self._refuse(f"{where}: dtype: expected one of {choices}, got {shown(dtype)}")
        if not _whole_numbers(shape) or len(shape) > 8:
            raise self._refuse(f"{where}: shape: expected whole numbers, got {shown(shape)}")
        if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._refuse(f"{where}: data_offsets: expected begin, end, got {shown(offsets)}")
        size = DTYPE_BYTES[dtype]
        for length in shape:
            size *= length
        info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
        if size != info.end - info.begin:
            raise self._refuse(
                f"{shown(name)}: expected {size} bytes of {info}, got {info.end - info.begin}"
            )
        return info

    def _check_layout(self) -> None:
        """The tensors' bytes follow each other and fill the file exactly."""
        at = 0
        for name, info in sorted(
            self.tensors.items(), key=lambda item: (item[1].begin, item[1].end)
        ):
            if info.begin != at:
                kind = "an overlap" if info.begin < at else "a hole"
                raise self._refuse(
                    f"{shown(name)}: expected to begin at byte {at}, got {kind}: {info.begin}"
                )
            at = info.end
        size, expected = len(self._bytes), self.data_start + at
        if size < expected:
            raise self._truncated("tensors", expected, size)
        if size > expected:
            raise self._refuse(f"file size: expected {expected} bytes, got {size}")

    def _truncated(self, part: str, expected: int, got: int) -> BitinferError:
        return self._error(
            f"{self.path}: {part}: expected a file of {expected} bytes, got {got}, it is truncated:"
            " download it again"
        )


class Checkpoint:
    """The tensors of a model folder: ``model.safetensors``, or the shards that an index names.

    A ``TensorSource``.

    Attributes:
        path: The model folder.
        notes, scale_groups, is_binary, float_activations: None; no dtype says so.
        files: The mapped shards, in order of their names.
        tensors: Name to place, over all shards.
    """

    def __init__(self, folder: Path) -> None:
        """Open all shards and check them against the index.

        Raises:
            CheckpointError: no weights, a shard missing or damaged, a tensor that the index does
                not place where it is, or a shard name that leaves the folder.
        """
        self.path = folder
        self.notes: tuple[str, ...] = ()
        self.scale_groups: Mapping[str, int] = {}
        self.is_binary = self.float_activations = False
        index = folder / INDEX_NAME
        if (folder / SINGLE_NAME).exists() or not index.exists():
            self.files = [SafetensorsFile(_single(folder))]
            names = dict.fromkeys(self.files[0].tensors, SINGLE_NAME)
        else:
            names = _weight_map(index)
            _refuse_missing_shards(folder, names)
            self.files = [SafetensorsFile(folder / shard) for shard in sorted(set(names.values()))]
        self._file_of = {name: file for file in self.files for name in file.tensors}
        self.tensors = {name: file.tensors[name] for name, file in self._file_of.items()}
        for file in self.files:
            for name in file.tensors:
                if names.get(name) != file.path.name:
                    place = names.get(name, "no shard")
                    also = " as well" if self._is_in(place, name) else ""
                    raise CheckpointError(
                        f"{shown(name)}: expected in {place} by {index}, got it in"
                        f" {file.path.name}{also}: download both again"
                    )
        for name, shard in names.items():
            if name not in self.tensors:
                raise CheckpointError(
                    f"{shown(name)}: expected in {shard} by {index}, got no such tensor there:"
                    " download both again"
                )

    @property
    def config(self) -> ModelConfig:
        """config.json, read now.

        Raises:
            ConfigError: see ``ModelConfig``.
        """
        return ModelConfig.from_file(self.path / "config.json")

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor: read-only uint8 ``(size,)``, no copy."""
        return self._file_of[name].view(name)

    def _is_in(self, shard: str, name: str) -> bool:
        return any(file.path.name == shard and name in file.tensors for file in self.files)

    def path_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._file_of[name].path

    def contents(self) -> dict[str, NDArray[np.uint8]]:
        """File name to its bytes, of all shards."""
        return {file.path.name: file.content() for file in self.files}

    def side_files(self) -> dict[str, bytes]:
        """Name to content of the ``SIDE_FILES`` in the folder."""
        there = [name for name in SIDE_FILES if (self.path / name).is_file()]
        return {name: (self.path / name).read_bytes() for name in there}


def describe_shape(shape: tuple[int, ...]) -> str:
    """``(640, 2560)`` for messages; a scalar is ``()``."""
    return f"({', '.join(map(str, shape))})"


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _single(folder: Path) -> Path:
    """The path of ``model.safetensors``, or an error that tells what the folder holds instead."""
    path = folder / SINGLE_NAME
    if path.exists() or path.is_symlink():
        return path
    if not folder.is_dir():
        state = "found nothing there: check the path"
        if folder.exists():
            with folder.open("rb") as file:
                what, mend = impostor(file.read(64)) or ("a file", "give the folder that holds it")
            state = f"got {what}: {mend}"
        raise CheckpointError(f"{folder}: expected a model folder, {state}")
    files = sorted(folder.iterdir())
    others = [p.name for p in files if p.suffix in (".bin", ".pt")]
    mend = f"{others[0]} is not read, use the safetensors checkpoint" if others else "download it"
    if any(p.name.startswith("model-") and p.suffix == ".safetensors" for p in files):
        mend = f"there are shards, download {INDEX_NAME} to them"
    raise CheckpointError(f"{path}: file not found: {mend}")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name to shard name, as a sharded checkpoint's index tells."""
    weight_map = read_json_object(index, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"weight_map: expected an object of shard names in {index}")
    for name, shard in weight_map.items():
        plain = isinstance(shard, str) and shard.endswith(".safetensors")
        if not plain or any(c in shard for c in "/\\\0:"):
            raise CheckpointError(
                f"{shown(name)}: expected the name of a shard beside the index, got {shown(shard)}"
                f" in {index}: download it again"
            )
    return weight_map


def _refuse_missing_shards(folder: Path, names: Mapping[str, str]) -> None:
    for name, shard in names.items():
        if not (folder / shard).exists():
            count = sum(other == shard for other in names.values())
            more = f" and {count - 1} more" if count > 1 else ""
            raise CheckpointError(
                f"{folder / shard}: file not found, which should hold {shown(name)}{more} by"
                f" {INDEX_NAME}: download it"
            )


def as_float32(data: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """Values of little-endian F32, F16 or BF16 bytes, any alignment, as a fresh float32 array."""
    if dtype == "BF16":
        bits = np.frombuffer(data.tobytes(), dtype="<u2").astype(np.uint32) << 16
        return bits.view(np.float32)
    return np.frombuffer(data.tobytes(), dtype={"F32": "<f4", "F16": "<f2"}[dtype]).astype(
        np.float32
    )
