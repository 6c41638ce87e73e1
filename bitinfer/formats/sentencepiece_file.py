"""SentencePiece's tokenizer.model of the BPE kind, as Llama 2 has it: a protobuf, read here.

    ModelProto        1 pieces, 2 trainer_spec, 3 normalizer_spec
    SentencePiece     1 piece (text), 2 score (float), 3 type (1 where it is absent)
    TrainerSpec       3 model_type (2 is BPE), 40 unk_id, 41 bos_id, 42 eos_id
    NormalizerSpec    2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces

GGUF's "llama" vocabularies hold the same under other names, so one builder serves both. Source:
google/sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from bitinfer.errors import TokenizerError
from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.formats.vocabulary_file import read_vocabulary
from bitinfer.json_file import read_json_object, shown

_MAX_BYTES = 64 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_BPE = 2
_DEFAULT_IDS = {40: ("unknown_token_id", 0), 41: ("bos_token_id", 1), 42: ("eos_token_id", 2)}
_NONE = (1 << 64) - 1  # -1: there is no such token

Fields = dict[int, list[Any]]  # number -> values in order: int, or bytes


def read_sentence_piece(path: Path) -> Tokenizer:
    """Read tokenizer.model, and the tokens that added_tokens.json beside it adds.

    Raises:
        TokenizerError: the file is missing, damaged, of another kind than BPE, or changes text
            before it is split; added tokens do not follow the others.
    """
    where = f"{path.name} in {path.parent}"
    metadata = _metadata(read_vocabulary(path, _MAX_BYTES, "SentencePiece's model", where), where)
    backend = tokenizer_from_gguf(metadata, where).backend
    added = path.with_name("added_tokens.json")
    if added.exists():
        _add(backend, read_json_object(added, TokenizerError), f"{added.name} in {path.parent}")
    return backend


def _metadata(content: bytes, where: str) -> dict[str, Any]:
    """The vocabulary as GGUF has it."""
    try:
        model = _fields(content)
        pieces = [_fields(piece) for piece in model.get(1, [])]
        trainer, normalizer = (_fields(b"".join(model.get(n, []))) for n in (2, 3))
        texts = [_last(piece, 1, b"").decode() for piece in pieces]
        scores = b"".join(_last(piece, 2, bytes(4)) for piece in pieces)
        types = [_last(piece, 3, 1) for piece in pieces]
        metadata: dict[str, Any] = {
            "model": "llama",
            "tokens": texts,
            "scores": np.frombuffer(scores, "<f4"),
            "token_type": np.array(types, np.int64),
            "add_space_prefix": bool(_last(normalizer, 3, 1)),
        }
        kind = _last(trainer, 3, 1)
        unchanged = not _last(normalizer, 2, b"") and not _last(normalizer, 4, 1)
        ids = {name: _last(trainer, n, default) for n, (name, default) in _DEFAULT_IDS.items()}
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise TokenizerError(
            f"{where}: expected SentencePiece's model, got {len(content)} bytes that are none:"
            " download it again, or take the model's tokenizer.json"
        ) from None
    wanted = {"kind BPE": kind == _BPE, "a normalizer that does nothing": unchanged}
    for expected, fits in wanted.items():
        if not fits:
            raise TokenizerError(
                f"{where}: expected {expected}, got another: take the model's tokenizer.json"
            )
    metadata |= {name: value for name, value in ids.items() if value != _NONE}
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}


def _last(fields: Fields, number: int, default: Any) -> Any:
    """The value of a field that stands once, of the type of ``default``."""
    value = fields.get(number, [default])[-1]
    if type(value) is not type(default):
        raise TypeError(number)
    return value


def _fields(message: bytes) -> Fields:
    """Fields of a protobuf message; ValueError if it is none."""
    found: Fields = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(message, at)
        else:
            length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
            if wire == _BYTES:
                length, at = _varint(message, at)
            if length is None or length > len(message) - at:
                raise ValueError(wire)
            value, at = message[at : at + length], at + length
        found.setdefault(number, []).append(value)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError(at)
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise ValueError(at)


def _add(backend: Tokenizer, added: Mapping[str, Any], where: str) -> None:
    """Tokens behind the vocabulary, which count as control tokens."""
    size = backend.get_vocab_size(with_added_tokens=False)
    wanted = {text: i for text, i in added.items() if backend.token_to_id(text) != i}
    for text, token_id in wanted.items():
        if type(token_id) is not int or token_id < size:
            raise TokenizerError(
                f"{where}: {shown(text)}: expected an id from {size}, behind the vocabulary, got"
                f" {shown(repr(token_id))}: take both files from one source"
            )
    for text, token_id in sorted(wanted.items(), key=lambda item: item[1]):
        backend.add_special_tokens([AddedToken(text, normalized=False, special=True)])
        if (got := backend.token_to_id(text)) != token_id:
            raise TokenizerError(
                f"{where}: {shown(text)}: expected id {got}, the next one, got {token_id}: take"
                " both files from one source"
            )
