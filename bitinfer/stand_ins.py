"""Plain tokens that stand for control tokens while a rendered chat template is encoded."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping

from tokenizers import AddedToken, Tokenizer


class StandIns:
    """The stand-ins of a tokenizer's control tokens, made as they are needed.

    Used under the tokenizer's lock: the backend is changed.
    """

    def __init__(self, backend: Tokenizer, control: Mapping[str, AddedToken]) -> None:
        """Make none yet.

        Args:
            backend: The tokenizer that gets to know them.
            control: Its control tokens by their text.
        """
        self._backend = backend
        self._control = control
        self._texts: dict[str, str] = {}  # control token -> text of its stand-in
        self._ids: dict[int, int] = {}  # id of a stand-in -> id of the control token

    def put(self, text: str, marker: str) -> str:
        """``text`` with a stand-in for each control token that ``marker`` does not break."""
        if not self._control:
            return text
        names = sorted(self._control, key=len, reverse=True)  # the longest wins, as in backend
        either = "|".join(map(re.escape, names))
        pattern = re.compile(f"(?:{either})(?!{re.escape(marker)})")
        self._prepare({*pattern.findall(text)})
        return pattern.sub(lambda match: self._texts[match[0]], text)

    def take_back(self, token_ids: Iterable[int]) -> list[int]:
        """The ids, those of control tokens where stand-ins were."""
        return [self._ids.get(i, i) for i in token_ids]

    def _prepare(self, names: set[str]) -> None:
        """Give each control token in ``names`` its stand-in: a plain added token nobody can type.

        A nonce of 128 bits keeps users from writing it. Its id lies above the vocabulary and
        never leaves the tokenizer. White space at its sides is treated as at the control token's.
        """
        for name in sorted(names - self._texts.keys()):
            real = self._control[name]
            text = f"\ufdd0{secrets.token_hex(16)}\ufdd1"  # noncharacters: in no normal text
            self._backend.add_tokens(
                [AddedToken(text, lstrip=real.lstrip, rstrip=real.rstrip, normalized=False)]
            )
            stand_in, control = map(self._backend.token_to_id, (text, name))
            assert stand_in is not None
            assert control is not None
            self._ids[stand_in] = control
            self._texts[name] = text
