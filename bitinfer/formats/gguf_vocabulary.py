"""A tokenizer.json as the metadata of a GGUF file: what ``gguf_tokenizer`` reads back.

GGUF names the split of text into words and does not describe it, knows no added tokens that take
the white space beside them, and derives SentencePiece's merges from scores. A tokenizer that this
cannot express is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from bitinfer.errors import ExportError
from bitinfer.formats.byte_level import (
    GPT2_WORDS,
    PUNCTUATION,
    WordSplit,
    merges_by_rank,
)
from bitinfer.formats.gguf_tokenizer import PREFIX, SPACE, SPLITS, TokenType
from bitinfer.formats.gguf_writer import Value
from bitinfer.json_file import shown

_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


def vocabulary_metadata(
    content: Mapping[str, Any], vocab_size: int, where: str
) -> dict[str, Value]:
    """The vocabulary under "tokenizer.ggml.*", without the ids that open and end a text.

    Args:
        content: tokenizer.json, as the `tokenizers` library writes it.
        vocab_size: Rows of the embedding; ids without a token are filled up.
        where: The model, for messages.

    Raises:
        ExportError: GGUF cannot express the tokenizer.
    """
    vocabulary = _Vocabulary(content, vocab_size, where)
    spaces = content["model"].get("byte_fallback")
    fields = vocabulary.sentence_piece() if spaces else vocabulary.byte_level()
    fields["tokens"] = vocabulary.tokens
    fields["token_type"] = np.array(vocabulary.types, np.int32)
    return {PREFIX + key: value for key, value in fields.items()}


class _Vocabulary:
    """A tokenizer.json on its way to GGUF.

    Attributes:
        tokens: Text of each id.
        types: token_type of each.
    """

    def __init__(self, content: Mapping[str, Any], vocab_size: int, where: str) -> None:
        self._where = where
        self._content = content
        self._model = content["model"]
        if (kind := self._model["type"]) != "BPE":
            self._refuse("model", "BPE", kind)
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if self._model.get(key):
                self._refuse(key, "none", self._model[key])
        added = {token["id"]: token for token in content["added_tokens"]}
        for token in added.values():
            for key in ("lstrip", "rstrip", "single_word"):
                if token[key]:
                    self._refuse(f"added token {token['content']!r}: {key}", "false", True)
        texts = {i: text for text, i in self._model["vocab"].items()}
        texts |= {i: token["content"] for i, token in added.items()}
        self.tokens = [texts.get(i, f"[PAD{i}]") for i in range(vocab_size)]
        self.types = [
            TokenType.NORMAL if i in texts else TokenType.UNUSED for i in range(vocab_size)
        ]
        for i, token in added.items():
            self.types[i] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        self._merges = [
            merge.split(" ") if isinstance(merge, str) else merge for merge in self._model["merges"]
        ]

    def byte_level(self) -> dict[str, Value]:
        """Keys of a byte-level vocabulary."""
        split = self._word_split()
        names = (
            name
            for name, known in SPLITS.items()
            if (known.patterns, known.ignore_merges, known.nfc)
            == (split.patterns, split.ignore_merges, split.nfc)
        )
        name = next(names, None)
        if name is None:
            self._refuse("split into words", f"that of {', '.join(SPLITS)}", split)
        merges = [" ".join(merge) for merge in self._merges]
        return {"model": "gpt2", "pre": name, "merges": merges}

    def sentence_piece(self) -> dict[str, Value]:
        """Keys of SentencePiece's kind: the earlier a token is merged, the higher its score."""
        steps = _parts(self._content.get("normalizer"), "normalizers")
        prepends = steps[:1] == [{"type": "Prepend", "prepend": SPACE}]
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        if steps[int(prepends) :] != [replace]:
            self._refuse("normalizer", "Prepend and Replace of spaces", steps)
        if self._content.get("pre_tokenizer") is not None:
            self._refuse("pre_tokenizer", "none", self._content["pre_tokenizer"])
        unknown = self._model.get("unk_token")
        for i, token in enumerate(self.tokens):
            if token == unknown:
                self.types[i] = TokenType.UNKNOWN
            elif token in _BYTES:
                self.types[i] = TokenType.BYTE
        ids = {token: i for i, token in enumerate(self.tokens)}
        unions = [left + right for left, right in self._merges]
        ranks = {token: rank for rank, token in enumerate(dict.fromkeys(unions))}
        scores = [-ranks.get(token, len(ranks) + i) for i, token in enumerate(self.tokens)]
        normal = {
            token: -float(score)
            for token, score, kind in zip(self.tokens, scores, self.types, strict=True)
            if kind == TokenType.NORMAL
        }
        if [left + right for left, right in merges_by_rank(normal)] != unions:
            self._refuse("merges", "those that scores give", "others")
        fields: dict[str, Value] = {
            "model": "llama",
            "pre": "default",
            "scores": np.array(scores, np.float32),
            "add_space_prefix": prepends,
        }
        return fields if unknown is None else {**fields, "unknown_token_id": ids[unknown]}

    def _word_split(self) -> WordSplit:
        """What happens to text before it is merged."""
        normal = _parts(self._content.get("normalizer"), "normalizers")
        if normal not in ([], [{"type": "NFC"}]):
            self._refuse("normalizer", "none or NFC", normal)
        patterns: list[str] = []
        in_bytes = False
        for part in _parts(self._content.get("pre_tokenizer"), "pretokenizers"):
            pattern = _pattern(part)
            if pattern is None or (in_bytes and pattern != "[0-9]"):
                self._refuse("pre_tokenizer", "splits into words and bytes", part)
            in_bytes = in_bytes or part["type"] == "ByteLevel"
            patterns += [pattern] if pattern else []
        if not in_bytes:
            self._refuse("pre_tokenizer", "ByteLevel", "none")
        ignore_merges = bool(self._model.get("ignore_merges"))
        return WordSplit(tuple(patterns), ignore_merges, nfc=bool(normal))

    def _refuse(self, what: str, expected: str, got: object) -> NoReturn:
        raise ExportError(
            f"{self._where}: tokenizer: {what}: expected {expected}, which GGUF can express, got"
            f" {shown(got)}"
        )


def _parts(step: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The members of a Sequence, a step alone, or nothing."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [dict(step)]
    return [part for inner in step[key] for part in _parts(inner, key)]


def _pattern(part: Mapping[str, Any]) -> str | None:
    """The expression whose matches a pre-tokenizer isolates, "" for none; None: another kind."""
    kind = part["type"]
    if kind == "ByteLevel" and not part["add_prefix_space"]:
        return GPT2_WORDS if part["use_regex"] else ""
    if kind == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
        pattern: str | None = part["pattern"].get("Regex")
        return pattern
    if kind == "Digits" and part["individual_digits"]:
        return r"\p{N}"
    if kind == "Punctuation" and part["behavior"] == "Contiguous":
        return PUNCTUATION
    return None
