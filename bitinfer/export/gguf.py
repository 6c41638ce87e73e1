"""``export_gguf``: a model as one GGUF file, its trits exact, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ExportError
from bitinfer.export.vocabulary import tokenizer_metadata
from bitinfer.export.weights import Weights, open_weights
from bitinfer.families.gguf_architecture import (
    ROPE_FACTORS,
    architecture_metadata,
    find_architecture,
    programs,
    rope_factors,
)
from bitinfer.families.gguf_names import gguf_name, permuted, permuted_heads
from bitinfer.families.spec import (
    EMBEDDING,
    HEAD,
    HEAD_SCALE,
    check_spec,
    float_shapes,
    ternary_shapes,
)
from bitinfer.formats.gguf_encode import BLOCKS, encode_ternary
from bitinfer.formats.gguf_writer import GgufWriter, NewTensor, Value
from bitinfer.formats.safetensors import as_float32
from bitinfer.model_folder import find_model

KINDS = tuple(kind.lower() for kind in BLOCKS)
_FILE_TYPES = {"TQ1_0": 36, "TQ2_0": 37, "I2_S": 40}  # general.file_type
_INSTEAD = "F16"  # of a matrix whose K the ternary type cannot hold, as llama.cpp does it
_CHUNK_WEIGHTS = 1 << 20  # of a float tensor that is made at a time

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: Where it is.
        architecture: Its general.architecture.
        programs: What reads it and computes it right.
        notes: What was mended in the model, and what the file cannot hold exactly; lines for the
            user.
    """

    path: Path
    architecture: str
    programs: str
    notes: tuple[str, ...]


def export_gguf(
    model: str | Path,
    target: str | Path,
    *,
    kind: str,
    force: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a model as a GGUF file, whole or not at all; equal inputs give equal bytes.

    Args:
        model: A model folder, packed or raw, a GGUF file, or a name that ``Model.load`` takes.
        target: The file to make; its folder must exist.
        kind: Type of the ternary matrices: ``tq1_0`` (1.69 bits a weight), ``tq2_0`` (2.06) or
            ``i2_s`` (2.0, of bitnet.cpp).
        force: Replace an existing file.
        progress: Called with bytes done and bytes in all.

    Returns:
        What was written, which programs read it, and what is not exact in it.

    Raises:
        ExportError: GGUF cannot hold the model or its tokenizer, the file is there already, or it
            cannot be written.
        BitinferError: the model cannot be used as it is.
        ValueError: ``kind`` is none of the three.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected {', '.join(KINDS)}, got {kind!r}")
    target = Path(target)
    _check_target(target, force)
    return _Export(find_model(model), target, kind.upper()).run(progress)


def _check_target(target: Path, force: bool) -> None:
    """Refuse a file that cannot be made or must not be replaced."""
    if not target.parent.is_dir():
        raise ExportError(f"{target.parent}: expected a folder to write to: create it first")
    if target.is_dir():
        raise ExportError(f"{target}: expected the name of a file, got a folder")
    if os.path.lexists(target) and not force:
        raise ExportError(
            f"{target}: is there already: take another name, or --force to replace it"
        )


class _Export:
    """One run: what goes into the file, and what is noted on the way."""

    def __init__(self, model: Path, target: Path, kind: str) -> None:
        self._weights: Weights = open_weights(model)
        self._kind = kind
        self._rounded: list[float] = []  # relative errors of scales that fp16 cannot hold
        self._target = target
        spec = self._weights.spec
        self._spec = spec
        self._architecture = find_architecture(spec, str(model))
        self._config = check_spec(spec, str(model), ExportError)
        self._rope = rope_factors(self._config)
        self._ternary = ternary_shapes(spec)
        self._here = self._names()
        vocabulary, notes = tokenizer_metadata(model, spec)
        self._metadata = {**self._general(), **vocabulary}
        self._notes = [*self._weights.notes, *notes]

    def run(self, progress: Progress | None) -> Exported:
        """Write the file."""
        tensors = {name: self._tensor(own) for name, own in self._here.items()}
        if not any(tensor.kind == self._kind for tensor in tensors.values()):
            block = BLOCKS[self._kind]
            widths = sorted({k for _, k in self._ternary.values()})
            raise ExportError(
                f"{self._weights.name}: expected columns in multiples of {block} for {self._kind},"
                f" got {' and '.join(map(str, widths))}: take another type, if one fits"
            )
        writer = GgufWriter(self._target, self._metadata, tensors)
        total = sum(tensor.num_bytes for tensor in tensors.values())
        done = 0
        with writer.create() as sink:
            for name, own in self._here.items():
                sink.write(name, self._chunks(own, tensors[name].kind))
                done += tensors[name].num_bytes
                if progress is not None:
                    progress(done, total)
        notes = (*self._notes, *self._exactness_notes(tensors))
        readers = programs(self._architecture, self._kind)
        return Exported(self._target, self._architecture, readers, notes)

    def _names(self) -> dict[str, str]:
        """GGUF name to name here, in the order of the file."""
        floats, layers = [*float_shapes(self._spec)], self._spec["num_hidden_layers"]
        outside = [name for name in floats if ".layers." not in name]
        if not self._spec["tie_word_embeddings"]:
            outside.append(HEAD)
        inside = [
            name
            for layer in range(layers)
            for name in (*floats, *self._ternary)
            if name.startswith(f"model.layers.{layer}.")
        ]
        names = {gguf_name(name): name for name in (*outside, *inside)}
        return names if self._rope is None else {ROPE_FACTORS: ROPE_FACTORS, **names}

    def _general(self) -> dict[str, Value]:
        """Metadata of the model but of its text."""
        return {
            "general.architecture": self._architecture,
            "general.name": self._weights.name,
            "general.file_type": _FILE_TYPES[self._kind],
            "general.quantization_version": 2,
            **architecture_metadata(self._architecture, self._spec),
        }

    def _tensor(self, name: str) -> NewTensor:
        """What becomes of a tensor here."""
        if name in self._ternary:
            shape = self._ternary[name]
            fits = shape[1] % BLOCKS[self._kind] == 0
            return NewTensor(self._kind if fits else _INSTEAD, shape)
        if name == ROPE_FACTORS:
            return NewTensor("F32", (self._spec["head_dim"] // 2,))
        if name in (EMBEDDING, HEAD):
            shape = (self._spec["vocab_size"], self._spec["hidden_size"])
            int8 = name == HEAD and self._weights.int8_head
            return NewTensor(_INSTEAD if int8 else self._weights.dtype(name), shape)
        return NewTensor("F32", float_shapes(self._spec)[name])

    def _chunks(self, name: str, kind: str) -> Iterable[NDArray[Any]]:
        """The bytes of a tensor here as the file has them."""
        heads = permuted_heads(name, self._architecture, self._config)
        if name in self._ternary:
            trits, scale = self._weights.trits(name)
            return self._encoded(name, kind, permuted(trits, heads) if heads else trits, scale)
        if name == ROPE_FACTORS:
            assert self._rope is not None
            return [self._rope]
        if name == HEAD and self._weights.int8_head:
            return self._widened_head()
        if name in (EMBEDDING, HEAD):
            return self._weights.chunks(name)
        stored = np.concatenate([c.reshape(-1).view(np.uint8) for c in self._weights.chunks(name)])
        values = as_float32(stored, self._weights.dtype(name))
        return [permuted(values, heads) if heads else values]

    def _encoded(
        self, name: str, kind: str, trits: NDArray[np.int8], scale: np.float32
    ) -> Iterator[NDArray[Any]]:
        if kind != "I2_S":
            with np.errstate(over="ignore"):
                half = np.float16(scale)
            if not (np.isfinite(half) and half > 0):
                raise ExportError(
                    f"{name}_scale: expected a number that fp16 of {kind} can hold, got {scale}:"
                    " i2_s keeps it"
                )
            if half != scale:
                self._rounded.append(abs(float(half) / float(scale) - 1))
        if kind != _INSTEAD:
            yield from encode_ternary(kind, trits, scale)
            return
        step = max(1, _CHUNK_WEIGHTS // trits.shape[1])
        for row in range(0, len(trits), step):
            yield trits[row : row + step] * half

    def _widened_head(self) -> Iterator[NDArray[np.float16]]:
        """The int8 head as F16."""
        vocab, hidden = self._spec["vocab_size"], self._spec["hidden_size"]
        (codes,), (scales,) = self._weights.chunks(HEAD), self._weights.chunks(HEAD_SCALE)
        rows = codes.view(np.int8).reshape(vocab, -1)[:, :hidden]
        scales = scales.view(np.float32)[:, None]
        step = max(1, _CHUNK_WEIGHTS // hidden)
        for row in range(0, vocab, step):
            yield (rows[row : row + step] * scales[row : row + step]).astype(np.float16)

    def _exactness_notes(self, tensors: Mapping[str, NewTensor]) -> Iterator[str]:
        if self._rounded:
            kept = "" if self._kind == "I2_S" else "; i2_s keeps them"
            yield (
                f"{len(self._rounded)} of {len(self._ternary)} scales were rounded to fp16, by at"
                f" most {max(self._rounded):.1e} of their value{kept}"
            )
        columns = [
            self._ternary[own][1]
            for name, own in self._here.items()
            if own in self._ternary and tensors[name].kind == _INSTEAD
        ]
        if columns:
            widths = " and ".join(map(str, sorted(set(columns))))
            yield (
                f"{len(columns)} matrices are {_INSTEAD}: their {widths} columns are no multiple of"
                f" {BLOCKS[self._kind]}"
            )
        if self._weights.int8_head:
            yield (
                "the head is the int8 one of this packed folder: convert with --head source for the"
                " checkpoint's own"
            )
        if self._spec["activation_levels"] != 127:
            yield "these programs quantize activations to 8 bits, which the model was not made for"
