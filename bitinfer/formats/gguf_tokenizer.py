"""The tokenizer in the metadata of a GGUF file, rebuilt for the `tokenizers` library.

Two kinds: byte-level BPE with merges ("gpt2"), and SentencePiece's BPE with scores ("llama").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from bitinfer.errors import TokenizerError
from bitinfer.formats.byte_level import (
    FALCON_E,
    GPT2,
    LLAMA3,
    QWEN2,
    SMOLLM,
    byte_level_tokenizer,
    merges_by_rank,
    put_bos_first,
)
from bitinfer.json_file import shown

PREFIX = "tokenizer.ggml."
SPLITS = {  # values of tokenizer.ggml.pre
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), LLAMA3),
    "qwen2": QWEN2,
    "smollm": SMOLLM,
    "gpt-2": GPT2,
    "falcon_e": FALCON_E,
}
_LLAMA3_TOKENS = 128256
SPACE = "▁"


class TokenType(IntEnum):
    """Values of tokenizer.ggml.token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class GgufTokenizer(NamedTuple):
    """What a GGUF file says of its tokenizer.

    Attributes:
        backend: Text to ids; it puts BOS in front where the model expects one.
        bos_token_id: Id that opens a text, or None.
        eos_token_ids: Ids that end a text or a turn, ascending.
        notes: What the file left open and how it was settled, each a line for the user.
    """

    backend: Tokenizer
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    notes: tuple[str, ...]


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str) -> GgufTokenizer:
    """Rebuild the tokenizer of a GGUF file.

    Args:
        metadata: Keys and values of the file, of which "tokenizer.ggml.*" are read.
        where: Name of the file, for messages.

    Raises:
        TokenizerError: a key is missing, of another type, or contradicts the others; the kind of
            vocabulary or its pre-tokenizer is not known.
    """
    fields = _Fields(metadata, where)
    kind = fields.text("model")
    if kind == "gpt2":
        backend, adds_bos, notes = _byte_level(fields)
    elif kind == "llama":
        backend, adds_bos, notes = _sentence_piece(fields), True, ()
    else:
        fields.refuse("model", "'gpt2' or 'llama'", repr(shown(kind)), "this kind is not supported")
    _add_tokens(backend, fields)
    bos = fields.token_id("bos_token_id")
    if fields.flag("add_bos_token", adds_bos and bos is not None):
        if bos is None:
            fields.refuse("bos_token_id", "an id, since add_bos_token is true", "none")
        put_bos_first(backend, bos, fields.tokens[bos])
    ends = {fields.token_id(key) for key in ("eos_token_id", "eot_token_id")}
    return GgufTokenizer(backend, bos, tuple(sorted(i for i in ends if i is not None)), notes)


class _Fields:
    """Checked access to "tokenizer.ggml.*".

    Attributes:
        tokens: Text of each id; no two are the same.
        types: int64 (len(tokens),), the token_type of each.
    """

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self._metadata = metadata
        self._where = where
        self.tokens: list[str] = self.texts("tokens")
        self.vocab = {token: i for i, token in enumerate(self.tokens)}
        if len(self.vocab) != len(self.tokens):
            token, times = Counter(self.tokens).most_common(1)[0]
            self.refuse("tokens", "every token once", f"{shown(token)!r} {times} times")
        self.types = self.numbers("token_type", "iu").astype(np.int64)
        for at in np.flatnonzero((self.types < TokenType.NORMAL) | (self.types > TokenType.BYTE))[
            :1
        ]:
            self.refuse(
                "token_type", f"{TokenType.NORMAL} to {TokenType.BYTE}", f"{self.types[at]} at {at}"
            )

    def refuse(self, key: str, expected: str, got: str, mend: str = "") -> NoReturn:
        mend = mend or "the file is damaged, download it again"
        raise TokenizerError(
            f"{PREFIX}{key}: expected {expected}, got {got} in {self._where}: {mend}"
        )

    def get(self, key: str) -> Any:
        return self._metadata.get(PREFIX + key)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            self.refuse(key, "a text", _what(value))
        return value

    def texts(self, key: str) -> list[str]:
        value = self.get(key)
        listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        if not listed or not all(isinstance(text, str) for text in listed):
            self.refuse(key, "a list of texts", _what(value))
        return listed

    def numbers(self, key: str, kinds: str) -> NDArray[Any]:
        """The array ``key``, one number for each token, of a NumPy kind in ``kinds``."""
        value = self.get(key)
        array = np.asarray(value if isinstance(value, list | tuple | np.ndarray) else [])
        if array.shape != (len(self.tokens),) or array.dtype.kind not in kinds:
            got = f"{len(array)}" if array.ndim == 1 and array.size else _what(value)
            self.refuse(key, f"{len(self.tokens)} numbers, one for each token", got)
        return array

    def token_id(self, key: str) -> int | None:
        value = self.get(key)
        if value is None:
            return None
        integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not integer or not 0 <= value < len(self.tokens):
            self.refuse(key, f"an id below {len(self.tokens)}", shown(value))
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool | np.bool_):
            self.refuse(key, "true or false", _what(value))
        return bool(value)


def _byte_level(fields: _Fields) -> tuple[Tokenizer, bool, tuple[str, ...]]:
    """The tokenizer, whether it begins texts with BOS, and notes."""
    vocab = fields.vocab
    merges: list[tuple[str, str]] = []
    notes: tuple[str, ...] = ()
    for n, merge in enumerate(fields.texts("merges")):
        left, _, right = merge.partition(" ")
        if not (left in vocab and right in vocab and left + right in vocab):
            fields.refuse("merges", "two tokens that make a third", f"{shown(merge)!r} at {n}")
        merges.append((left, right))
    if fields.get("pre") is None:
        name = "llama-bpe" if len(vocab) == _LLAMA3_TOKENS else "gpt-2"
        notes = (
            f"{PREFIX}pre is missing: text is split as {name!r} does it, judged by the "
            f"{len(vocab)} tokens",
        )
    else:
        name = fields.text("pre")
    if name not in SPLITS:
        known = ", ".join(SPLITS)
        fields.refuse("pre", f"one of {known}", repr(shown(name)), "this split is not known")
    return byte_level_tokenizer(vocab, merges, SPLITS[name]), SPLITS[name].adds_bos, notes


def _sentence_piece(fields: _Fields) -> Tokenizer:
    scores = fields.numbers("scores", "f")
    if not np.isfinite(scores).all():
        fields.refuse("scores", "finite numbers", "infinity or NaN")
    ranks = zip(fields.tokens, (-scores).tolist(), fields.types == TokenType.NORMAL, strict=True)
    merges = merges_by_rank({token: rank for token, rank, normal in ranks if normal})
    bytes_ = {fields.tokens[i] for i in np.flatnonzero(fields.types == TokenType.BYTE)}
    if wrong := bytes_ - {f"<0x{byte:02X}>" for byte in range(256)}:
        fields.refuse("tokens", "bytes as '<0x0A>'", repr(shown(min(wrong))))
    unknown = fields.token_id("unknown_token_id")
    model = models.BPE(
        fields.vocab,
        merges,
        unk_token=None if unknown is None else fields.tokens[unknown],
        fuse_unk=True,
        byte_fallback=bool(bytes_),
    )
    backend = Tokenizer(model)
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if fields.flag("add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    backend.normalizer = normalizers.Sequence(spaces)
    backend.decoder = decoders.Sequence(back)
    return backend


def _add_tokens(backend: Tokenizer, fields: _Fields) -> None:
    """Tokens that are found in text before it is split: control tokens, and the model's own."""
    types, added = fields.types, []
    for i in np.flatnonzero(
        np.isin(types, (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED))
    ):
        special = bool(types[i] != TokenType.USER_DEFINED)
        added.append(AddedToken(fields.tokens[i], normalized=False, special=special))
    backend.add_tokens(added)


def _what(value: object) -> str:
    """What a value is, in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return f"a list of {len(value)}" if len(value) else "an empty list"
    return f"{type(value).__name__} {shown(value, 40)!r}"
