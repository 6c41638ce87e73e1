"""``GgufSource``: a GGUF file as a source of tensors, in the row order of Hugging Face.

Ternary projections are had as trits, everything else as floats, whatever the file stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer.config import ModelConfig
from bitinfer.errors import CheckpointError
from bitinfer.families.gguf_architecture import ROPE_FACTORS
from bitinfer.families.gguf_config import config_values
from bitinfer.families.gguf_names import (
    hugging_face_name,
    is_projection,
    own_scale,
    permuted_heads,
    unpermuted,
)
from bitinfer.families.gguf_text import read_text, text_files
from bitinfer.formats.gguf import TERNARY_TYPES, GgufFile, TernaryMatrix
from bitinfer.formats.gguf_blocks import BINARY, TERNARY_BLOCKS
from bitinfer.formats.gguf_floats import FLOAT_BLOCKS
from bitinfer.formats.safetensors import describe_shape
from bitinfer.formats.source import TRITS

_STORED_FLOATS = ("F32", "F16", "BF16")
_INSTEAD = "F16"  # of ternary matrices whose rows are no whole blocks
_I2_S = "I2_S"
_INTERLEAVED = "IQ2_BN_R4"  # four rows of IQ2_BN
_HASHED_BYTES = 16 << 20  # at a time
# Files whose byte order of I2_S is known: bytes -> SHA-256 and layout.
_KNOWN_LAYOUTS = {
    1_187_801_280: (  # microsoft/bitnet-b1.58-2B-4T-gguf, ggml-model-i2_s.gguf
        "4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162",
        "128-block",
    ),
}


@dataclass(frozen=True)
class StoredGguf:
    """A tensor as ``GgufSource`` gives it.

    Attributes:
        dtype: ``TRITS``, or that of its floats.
        shape: (N, K), or (K,).
        type_name: Its type in the file.
        scale_dtype: Of the scales of trits.
    """

    dtype: str
    shape: tuple[int, ...]
    type_name: str
    scale_dtype: str = "F32"

    def __str__(self) -> str:
        return f"{self.type_name} {describe_shape(self.shape)}"


class GgufSource:
    """The tensors of a GGUF file by their stored names; a ``TensorSource``.

    Attributes:
        path: The file.
        tensors: Stored name to tensor; what is told by others (scales, RoPE's) is left out.
        config: What config.json would hold, checked.
        scale_groups: How the scales of the projections lie, as traits of the spec; {}: each has
            one.
        float_activations: The model was not trained with int8 activations: its scales lie in
            groups, or its name is of a family of such models.
        i2s_layout: Byte order of the I2_S tensors; None: there are none, or it is not known yet.
        notes: Sentences for the user on what the file left open or has wrong.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and check its header and what it says of the model.

        Raises:
            CheckpointError: the file is damaged, or a part of a split one.
            ConfigError: the model is not supported.
            TokenizerError: the tokenizer is damaged or not known.
        """
        self.path = path
        self._file = GgufFile(path)
        parts = self._file.metadata.get("split.count")
        if isinstance(parts, int) and parts > 1:
            raise CheckpointError(
                f"{path}: expected a whole model, got one part of a split file: join the parts with"
                " llama.cpp's 'llama-gguf-split --merge'"
            )
        self.tensors: Mapping[str, StoredGguf] = self._describe()
        self._text = read_text(self._file)
        ternary = any(stored.dtype == TRITS for stored in self.tensors.values())
        self._values = config_values(self._file, self._text, ternary=ternary)
        self.config = ModelConfig.from_dict(self._values, path.name)
        self.scale_groups = self._scale_groups()
        self.i2s_layout: str | None = None
        self.notes = list(self._text.notes)
        self.float_activations = bool(self.scale_groups)
        if ternary and not self.scale_groups and self._is_trilm():
            self.float_activations = True
            self.notes.append("TriLM by its name: runs with activations of 15 bits, not int8")

    @property
    def needs_layout(self) -> bool:
        """Whether there are I2_S tensors, whose byte order the file does not tell."""
        return any(tensor.type.name == _I2_S for tensor in self._file.tensors.values())

    @property
    def is_embedding_model(self) -> bool:
        """Whether the file says how to pool hidden states."""
        return self._text.pooling is not None

    @property
    def is_binary(self) -> bool:
        """Whether no projection has a weight 0, by its type."""
        kinds = {t.type_name for t in self.tensors.values() if t.dtype == TRITS}
        return kinds == {BINARY}

    def known_layout(self) -> str | None:
        """The byte order of I2_S in a file that is known by its SHA-256; None: it is another."""
        content = self._file.content()
        known = _KNOWN_LAYOUTS.get(len(content))
        if known is None:
            return None
        digest = hashlib.sha256()
        for at in range(0, len(content), _HASHED_BYTES):
            digest.update(content[at : at + _HASHED_BYTES].data)
        return known[1] if digest.hexdigest() == known[0] else None

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a float tensor: uint8 ``(size,)``; no copy where they are stored so."""
        kind = self._file.tensors[name].type.name
        if kind in _STORED_FLOATS:
            data = self._file.view(name)
        elif kind in TERNARY_TYPES:
            data = _values(self.trits(name)).view(np.uint8)
        else:
            data = self._file.floats(name).view(np.uint8)
        heads = self._permuted_heads(name)
        if heads is not None:
            data = unpermuted(data.reshape(self.tensors[name].shape[0], -1), heads)
        return data.reshape(-1)

    def trits(self, name: str) -> TernaryMatrix:
        """A ternary matrix; I2_S is read in the byte order of ``i2s_layout``.

        Raises:
            CheckpointError: a code encodes no weight, a scale is not finite, TL1 or TL2 have a
                shape whose tiles are not known, or floats among ternary matrices are not ternary.
        """
        kind = self._file.tensors[name].type.name
        if kind == _INSTEAD:
            matrix = self._trits_of_floats(name)
        else:
            matrix = self._file.trits(name, self.i2s_layout if kind == _I2_S else None)
        trits, scales = matrix.trits, matrix.scales
        if (own := own_scale(name)) in self._file.tensors:
            scales = scales * self._file.floats(own).reshape(-1)[0]
        heads = self._permuted_heads(name)
        if heads is not None:
            trits = unpermuted(trits, heads)
            scales = scales if matrix.group is None else unpermuted(scales, heads)
        return TernaryMatrix(trits, scales, matrix.group)

    def _trits_of_floats(self, name: str) -> TernaryMatrix:
        values = self._file.floats(name)
        scale = np.abs(values).max()
        if not (np.isfinite(scale) and np.isin(values, (-scale, 0, scale)).all()):
            raise CheckpointError(
                f"{name}: expected 0 and one magnitude, as the ternary matrices beside it have, got"
                f" other values of {_INSTEAD} in {self.path}: llama.cpp runs this model"
            )
        trits = np.sign(values).astype(np.int8)
        return TernaryMatrix(trits, np.array([scale or 1.0], np.float32), None)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` as the model expects it; none where the file has no tokenizer."""
        backend = self._text.backend
        return [] if backend is None else list(backend.encode(text).ids)

    def path_of(self, name: str) -> Path:
        """The file."""
        return self.path

    def contents(self) -> dict[str, NDArray[np.uint8]]:
        """Name and bytes of the file."""
        return {self.path.name: self._file.content()}

    def side_files(self) -> dict[str, bytes]:
        """Name to content of the files that stand beside the weights of a checkpoint."""
        files = text_files(self._text, self._values)
        return {name: text.encode() for name, text in files.items()}

    def check_ternary(self) -> None:
        """Refuse a model whose projections are not ternary.

        Raises:
            CheckpointError: one is not; names a program that runs the model.
        """
        for name, stored in self.tensors.items():
            if is_projection(name) and stored.dtype != TRITS:
                types = ", ".join(TERNARY_TYPES)
                mend = "llama.cpp runs this model"
                if stored.type_name == _INTERLEAVED:
                    mend = "ik_llama.cpp runs this model, or take it as IQ2_BN"
                if stored.dtype in _STORED_FLOATS:
                    mend += ", 'bitinfer convert --ternarize absmean' makes it ternary, at a loss"
                raise CheckpointError(
                    f"{name}: expected a ternary type of {types}, got {stored} in {self.path}:"
                    f" {mend}"
                )

    def _describe(self) -> dict[str, StoredGguf]:
        tensors = {}
        scales = {own_scale(name) for name in self._file.tensors}
        blocks = {
            tensor.type.block
            for name, tensor in self._file.tensors.items()
            if tensor.type.name in TERNARY_BLOCKS and is_projection(name)
        }
        for name, tensor in self._file.tensors.items():
            kind = tensor.type.name
            if name in scales:
                self._check_scale(name)
            if name in scales or name == ROPE_FACTORS:
                continue
            dtype = "F32" if kind in (*FLOAT_BLOCKS, *TERNARY_TYPES) else kind
            dtype = kind if kind in _STORED_FLOATS else dtype
            instead = kind == _INSTEAD and blocks and all(tensor.shape[-1] % b for b in blocks)
            if is_projection(name) and (kind in TERNARY_TYPES or instead):
                dtype = TRITS
            own = own_scale(name) in self._file.tensors
            layout = None if own else TERNARY_BLOCKS.get(kind)
            scale_dtype = "F32" if layout is None else layout.scale_dtype
            tensors[name] = StoredGguf(dtype, tensor.shape, kind, scale_dtype)
        return tensors

    def _scale_groups(self) -> dict[str, int]:
        """Of the projections whose blocks or rows do not have one scale in common."""
        found: dict[tuple[str, int], str] = {}
        for name, stored in self.tensors.items():
            scales = self._file.block_scales(name) if stored.dtype == TRITS else None
            used = scales[scales != 0] if scales is not None else np.empty(0)
            if used.size and (used != used[0]).any():
                kind = self._file.tensors[name].type
                of_row, of_block = ("scale_group_count", 1), ("scale_group_size", kind.block)
                found[of_row if kind.row_bytes else of_block] = name
        if found and self.needs_layout:
            raise CheckpointError(
                f"{self.path}: expected ternary types with scales for groups, got I2_S among them:"
                " take a file of one type"
            )
        if len(found) > 1:
            groups = ", ".join(
                f"{'a row' if trait == 'scale_group_count' else f'{size} columns'} in {name}"
                for (trait, size), name in found.items()
            )
            raise CheckpointError(
                f"{self.path}: expected scales for groups of one size, got {groups}: take a file of"
                " one type"
            )
        return dict(found.keys())

    def _is_trilm(self) -> bool:
        """Whether the name is one of TriLM's: its files are otherwise like those of BitNets."""
        names = (self._file.metadata.get(key, "") for key in ("general.name", "general.basename"))
        return any("trilm" in str(name).lower() for name in names)

    def _check_scale(self, name: str) -> None:
        tensor = self._file.tensors[name]
        if tensor.type.name not in _STORED_FLOATS or tensor.shape != (1,):
            raise CheckpointError(
                f"{name}: expected {' or '.join(_STORED_FLOATS)} (1), got {tensor} in {self.path}"
            )

    def _permuted_heads(self, name: str) -> int | None:
        architecture = self._file.metadata.get("general.architecture")
        return permuted_heads(hugging_face_name(name) or "", architecture, self.config)


def _values(matrix: TernaryMatrix) -> NDArray[np.float32]:
    """The values of a ternary matrix, float32 (N, K)."""
    trits, scales = matrix.trits, matrix.scales
    if matrix.group is None:
        return trits * scales
    blocks = trits.reshape(*scales.shape, matrix.group) * scales[..., None]
    return blocks.reshape(trits.shape)
