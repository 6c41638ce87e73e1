"""``StreamingDetokenizer``: the text of token ids that come one by one, in whole characters."""

from __future__ import annotations

from collections.abc import Sequence

from bitinfer.tokenizer import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class StreamingDetokenizer:
    """Text of a growing list of tokens, piece by piece.

    The pieces joined are the decoded whole: ``"".join(add(i) for i in ids) + finish()`` equals
    ``tokenizer.decode(ids)``, and no piece ends inside a UTF-8 character. Most tokens have one text
    wherever they stand, which the tokenizer remembers. For others a window of the last tokens is
    decoded again: text that ends in U+FFFD may still change and waits.

    Byte-fallback tokens wait until their run ends, for one bad byte turns the whole run into
    U+FFFD. A window that keeps waiting is decoded again only when it has grown by an eighth, so
    that the time stays linear in the number of tokens whatever they are.
    """

    _EAGER = 8  # fewer waiting tokens are decoded each time: a character has at most 4 bytes

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        """Start after ``context``, whose text is not given out.

        Args:
            tokenizer: Decodes.
            context: Tokens before the first (the prompt). SentencePiece drops a leading space
                only at the start of a text, so what stood before matters.
        """
        self._tokenizer = tokenizer
        self._window = self._tail(context)
        self._start = len(self._window)  # tokens of the window that are given out in full
        self._known: int | None = None  # characters of these, once counted
        self._inside = self._count_known() > 0  # whether text stands before
        self._retry = 0

    def add(self, token_id: int) -> str:
        """Take one token; return the text that is now certain ("" if it must wait)."""
        piece = self._tokenizer.piece(token_id)
        if piece == "":
            return ""
        if piece is not None and self._inside and len(self._window) == self._start:
            self._window, self._start, self._known = [token_id], 1, None
            return piece
        self._window.append(token_id)
        return "" if self._tokenizer.is_byte(token_id) else self._decode_window()

    def finish(self) -> str:
        """Return what still waits; unfinished characters become U+FFFD."""
        piece = self._decode(self._window)[self._count_known() :]
        self._window.clear()
        self._known = self._start = self._retry = 0
        self._inside = False
        return piece

    def _decode_window(self) -> str:
        """The window's text behind what is known, if it is certain."""
        waiting = len(self._window) - self._start
        if waiting < self._retry:
            return ""
        text, known = self._decode(self._window), self._count_known()
        if text.endswith(_REPLACEMENT) or len(text) <= known:
            self._retry = waiting + waiting // self._EAGER
            return ""
        del self._window[: self._start]  # the tokens just given out are the context of the next
        self._start, self._known = len(self._window), None
        self._inside, self._retry = True, 0
        return text[known:]

    def _count_known(self) -> int:
        if self._known is None:
            self._known = len(self._decode(self._window[: self._start]))
        return self._known

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids) if token_ids else ""

    def _tail(self, context: Sequence[int]) -> list[int]:
        """The last few tokens of ``context`` after its last control token: a text begins there.

        A byte run is taken from its beginning, since its bytes are decoded together.
        """
        start = max(len(context) - 8, 0)
        while start > 0 and self._tokenizer.is_byte(context[start]):
            start -= 1
        tail = list(context[start:])
        ends = [n for n, token_id in enumerate(tail) if token_id in self._tokenizer.special_ids]
        return tail[ends[-1] + 1 :] if ends else tail
