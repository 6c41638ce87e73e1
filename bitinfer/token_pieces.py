"""The text that each token adds by itself, where the decoder lets that be said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from tokenizers import Tokenizer

Decode = Callable[[list[int]], str]
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Decoders that give a token the same text everywhere but at the start and within a character.
_PLAIN_DECODERS = (
    ["ByteLevel"],
    ["Replace", "ByteFallback", "Fuse"],
    ["Replace", "ByteFallback", "Fuse", "Strip"],
)


class TokenPieces:
    """Text of single tokens; each is looked up once.

    Attributes:
        byte_ids: Ids that are one byte of a byte-fallback vocabulary.
    """

    def __init__(
        self,
        backend: Tokenizer,
        decode: Decode,
        vocab_size: int,
        special_ids: Iterable[int],
    ) -> None:
        """Look for a token behind which others show their text.

        Args:
            backend: The tokenizer; not kept.
            decode: Text of ids, without control tokens; not kept.
            vocab_size: Ids lie below it.
            special_ids: Ids of control tokens.
        """
        self.byte_ids = _byte_fallback_ids(backend)
        self._pieces: dict[int, str | None] = dict.fromkeys(special_ids, "")
        self._anchor = self._find_anchor(backend, decode, vocab_size)

    def piece(self, token_id: int, decode: Decode) -> str | None:
        """As `Tokenizer.piece`, with the ``decode`` of before."""
        if token_id not in self._pieces:
            self._pieces[token_id] = self._find_piece(token_id, decode)
        return self._pieces[token_id]

    def _find_anchor(self, backend: Tokenizer, decode: Decode, vocab_size: int) -> int | None:
        """A token with text of its own, behind which others show theirs; None: there is none."""
        if not _decodes_plainly(backend):
            return None
        ids = (i for i in range(vocab_size) if i not in self.byte_ids)
        texts = ((i, decode([i])) for i in ids)
        return next((i for i, text in texts if text and _REPLACEMENT not in text), None)

    def _find_piece(self, token_id: int, decode: Decode) -> str | None:
        if self._anchor is None or token_id in self.byte_ids:
            return None
        piece = decode([self._anchor, token_id])[len(decode([self._anchor])) :]
        return piece if piece and _REPLACEMENT not in piece else None


def _decodes_plainly(backend: Tokenizer) -> bool:
    """Whether the decoder is one of ``_PLAIN_DECODERS``."""
    if backend.decoder is None:
        return False
    state = json.loads(backend.decoder.__getstate__())
    steps = state.get("decoders", [state])
    plain = [step["type"] for step in steps] in _PLAIN_DECODERS
    return plain and not any(step.get("stop") for step in steps)  # strips no end


def _byte_fallback_ids(backend: Tokenizer) -> frozenset[int]:
    """Ids of "<0x00>" to "<0xFF>" if the decoder joins them to characters, else none."""
    decoder = backend.decoder
    if decoder is None or b"ByteFallback" not in decoder.__getstate__():
        return frozenset()
    ids = (backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(i for i in ids if i is not None)
