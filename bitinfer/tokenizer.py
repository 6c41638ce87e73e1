"""Text to token ids and back: a model's tokenizer file, its BOS and end tokens.

The `tokenizers` library does the splitting. Here stands what it leaves open: which ids end a reply,
one leading BOS, and control tokens that only a template may write.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer as _Backend

from bitinfer.errors import TokenizerError
from bitinfer.json_file import read_json_object
from bitinfer.stand_ins import StandIns
from bitinfer.token_pieces import TokenPieces
from bitinfer.tokenizer_file import listed_ids, read_tokenizer, token_text, tokenizer_file

# Control tokens that end a turn, by name. A template writes one after each reply, but config files
# often list only the end of a whole text (<|end_of_text|>), and the model would ramble on.
END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end_of_turn|>", "<|end|>")


class Tokenizer:
    """A model's tokenizer; safe to share between threads.

    Attributes:
        vocab_size: Largest token id + 1. The embedding may have more rows (padding), never fewer.
        bos_token_id: Id that opens a text, or None.
        bos_token, eos_token: Their text as a chat template knows it; "" where there is none.
        eos_token_ids: Every id that ends a reply, ascending.
        special_ids: Ids of control tokens.
    """

    def __init__(
        self,
        backend: _Backend,
        *,
        bos_token_id: int | None = None,
        eos_token_ids: Iterable[int] = (),
        settings: dict[str, Any] | None = None,
        template: str = "",
        where: str = "tokenizer.json",
    ) -> None:
        """Wrap ``backend``, which this object owns from now on.

        Args:
            backend: Tokenizer as read from tokenizer.json.
            bos_token_id, eos_token_ids: As config.json and generation_config.json have them.
            settings: Content of tokenizer_config.json.
            template: Source of the chat template, searched for end-of-turn tokens.
            where: Name of the file, for messages.

        Raises:
            TokenizerError: the vocabulary is empty.
        """
        settings = settings or {}
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._lock = threading.Lock()  # the backend may not be changed while in use
        if not backend.get_vocab_size(with_added_tokens=True):
            raise TokenizerError(f"{where}: expected a vocabulary, got none: download it again")
        self.vocab_size = _largest_id(backend) + 1

        named_bos = backend.token_to_id(token_text(settings.get("bos_token")))
        named_eos = backend.token_to_id(token_text(settings.get("eos_token")))
        self.bos_token_id = bos_token_id if named_bos is None else named_bos
        ends = {*eos_token_ids, *([] if named_eos is None else [named_eos])}
        turns = (backend.token_to_id(name) for name in END_OF_TURN if name in template)
        ends |= {token_id for token_id in turns if token_id is not None}
        self.eos_token_ids: tuple[int, ...] = tuple(sorted(ends))

        self._mark_as_control({*listed_ids(self.bos_token_id), *ends})
        added = backend.get_added_tokens_decoder()
        self._control = {token.content: token for token in added.values() if token.special}
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self.bos_token = token_text(settings.get("bos_token")) or self._text_of(self.bos_token_id)
        self.eos_token = token_text(settings.get("eos_token")) or self._text_of(
            self.eos_token_ids[0] if self.eos_token_ids else None
        )
        self._adds_bos = self._decide_bos(settings.get("add_bos_token"))
        self._pieces = TokenPieces(backend, self.decode, self.vocab_size, self.special_ids)
        self._stand_ins = StandIns(backend, self._control)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        vocab_size: int,
        bos_token_id: int | None = None,
        eos_token_ids: Iterable[int] = (),
        template: str = "",
    ) -> Tokenizer:
        """Read the tokenizer of a model folder.

        Args:
            folder: Holds tokenizer.json, or tokenizer.model: Llama 3's ranks, or Llama 2's
                SentencePiece model with added_tokens.json if any; tokenizer_config.json and
                generation_config.json if any.
            vocab_size: Rows of the model's embedding.
            bos_token_id, eos_token_ids: As config.json has them; generation_config.json adds to
                the latter.
            template: Source of the chat template.

        Raises:
            TokenizerError: the tokenizer's file is missing or damaged; it has more ids than the
                embedding has rows, or the BOS or an end token lies beyond these rows.
        """
        path = tokenizer_file(folder) or folder / "tokenizer.json"
        where = f"{path.name} in {folder}"
        backend = read_tokenizer(path, where)
        settings, generation = (
            read_json_object(folder / name, TokenizerError) if (folder / name).exists() else {}
            for name in ("tokenizer_config.json", "generation_config.json")
        )
        ends = [*eos_token_ids, *listed_ids(generation.get("eos_token_id"))]
        tokenizer = cls(
            backend,
            bos_token_id=bos_token_id,
            eos_token_ids=ends,
            settings=settings,
            template=template,
            where=where,
        )
        tokenizer.check_fits(vocab_size, where)
        return tokenizer

    def check_fits(self, vocab_size: int, where: str) -> None:
        """Refuse a tokenizer that is not the model's.

        Args:
            vocab_size: Rows of the model's embedding.
            where: Name of the tokenizer's file, for messages.

        Raises:
            TokenizerError: it has more ids than the embedding has rows, or the BOS or an end token
                lies beyond these rows.
        """
        if self.vocab_size > vocab_size:
            raise TokenizerError(
                f"{where}: expected token ids below {vocab_size} (rows of the embedding), got "
                f"{self.vocab_size - 1}: this is another model's tokenizer, "
                "take both from one source"
            )
        for name, ids in (("bos", listed_ids(self.bos_token_id)), ("eos", self.eos_token_ids)):
            for token_id in ids:
                if not 0 <= token_id < vocab_size:
                    raise TokenizerError(
                        f"{name}_token_id: expected an id below {vocab_size} (rows of the "
                        f"embedding), got {token_id} in {where} or a config beside it: correct it"
                    )

    def encode(
        self, text: str, add_special_tokens: bool = False, *, parse_special: bool = False
    ) -> list[int]:
        """Token ids of ``text``.

        Args:
            text: Any text without lone surrogates.
            add_special_tokens: Put in front what the model expects there (one BOS, if it has one).
            parse_special: Let "<s>" and the like in ``text`` become control tokens. Off, they are
                plain text, which is what text from a user must be.

        Raises:
            ValueError: ``text`` holds a lone surrogate.
        """
        with self._lock:
            self._backend.encode_special_tokens = not parse_special
            ids = self._encode(text)
        return self._with_bos(ids) if add_special_tokens else ids

    def encode_whole(
        self, text: str, limit: int | None = None, *, closed: bool = True
    ) -> list[int]:
        """Token ids of a text that ends here, with what the post-processor puts around it.

        Args:
            text: Any text without lone surrogates; "<s>" and the like are plain text in it.
            limit: Cut the text, not what is put around it, to so many ids; None: take all.
            closed: With what comes behind the text (EOS, where the model has one); else without.

        Raises:
            ValueError: ``text`` holds a lone surrogate.
        """
        with self._lock:
            self._backend.encode_special_tokens = True
            encoding = self._encoding(text)
            if limit is not None:
                around = self._with_bos(self._backend.post_process(self._encoding("")).ids)
                encoding.truncate(max(limit - len(around), 0))
            encoding = self._backend.post_process(encoding)
        ids = self._with_bos(list(encoding.ids))
        while not closed and ids and ids[-1] in self.special_ids:
            ids.pop()
        return ids

    def encode_rendered(self, text: str, marker: str) -> list[int]:
        """Token ids of a rendered chat template: its control tokens count, the users' do not.

        Each control token becomes a stand-in that the backend knows as a plain token, and special
        tokens are not parsed at all. So one call sees the whole text and merges it as usual, and a
        control token that ``marker`` broke stays text once the marker is gone.

        Args:
            text: Rendered template.
            marker: What `chat_template` put into control tokens that stood in a message.
        """
        with self._lock:
            text = self._stand_ins.put(text, marker).replace(marker, "")
            self._backend.encode_special_tokens = True
            ids = self._encode(text)
        return self._with_bos(self._stand_ins.take_back(ids))

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of ``token_ids``; bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is negative or 2^32 and above.
        """
        try:
            with self._lock:
                return self._backend.decode(
                    [int(i) for i in token_ids], skip_special_tokens=skip_special_tokens
                )
        except OverflowError:
            raise ValueError("token_ids: expected ids from 0 to 2^32 - 1") from None

    def to_json(self) -> str:
        """The tokenizer.json in use, in which BOS and the end tokens are marked as special."""
        with self._lock:
            content = json.loads(self._backend.to_str())
        own = [token for token in content["added_tokens"] if token["id"] < self.vocab_size]
        return json.dumps({**content, "added_tokens": own})  # without the stand-ins

    @property
    def vocabulary(self) -> dict[int, str]:
        """What each token id stands for, as the vocabulary writes it; a fresh dict."""
        with self._lock:
            tokens = self._backend.get_vocab(with_added_tokens=True)
        return {i: text for text, i in tokens.items() if i < self.vocab_size}

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts of all control tokens."""
        return tuple(self._control)

    def piece(self, token_id: int) -> str | None:
        """Text that a token adds behind other text; "" of a control token.

        None where that depends on its neighbours: a part of a character, or an unusual decoder.
        """
        return self._pieces.piece(token_id, self.decode)

    def is_byte(self, token_id: int) -> bool:
        """Whether the id is one byte of a byte-fallback vocabulary, such as "<0xE4>"."""
        return token_id in self._pieces.byte_ids

    def _encode(self, text: str) -> list[int]:
        return list(self._encoding(text).ids)

    def _encoding(self, text: str) -> Encoding:
        """Of the text alone."""
        try:
            return self._backend.encode(text, add_special_tokens=False)
        except TypeError:
            at = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), 0)
            raise ValueError(f"text: expected Unicode, got a lone surrogate at {at}") from None

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Exactly one leading BOS where the model expects one; else ids as they are."""
        bos = self.bos_token_id
        if bos is None or not (self._adds_bos or ids[:1] == [bos]):
            return ids
        start = next((n for n, i in enumerate(ids) if i != bos), len(ids))
        return [bos, *ids[start:]]

    def _decide_bos(self, setting: object) -> bool:
        """Whether texts begin with BOS: as tokenizer_config.json says, else the post-processor."""
        if self.bos_token_id is None:
            return False
        if isinstance(setting, bool):
            return setting
        first = self._backend.encode("", add_special_tokens=True).ids[:1]
        return bool(first == [self.bos_token_id])

    def _text_of(self, token_id: int | None) -> str:
        text = None if token_id is None else self._backend.id_to_token(token_id)
        return text or ""

    def _mark_as_control(self, token_ids: set[int]) -> None:
        """BOS and end tokens are control tokens even where tokenizer.json does not flag them."""
        added = self._backend.get_added_tokens_decoder()
        tokens = [added[i] for i in sorted(token_ids) if i in added and not added[i].special]
        for token in tokens:
            token.special = True
        self._backend.add_special_tokens(tokens)


def _largest_id(backend: _Backend) -> int:
    """The largest token id; to make a dict of 128,000 tokens for it would take 0.2 s."""
    added = max(backend.get_added_tokens_decoder(), default=-1)
    base = backend.get_vocab_size(with_added_tokens=False)
    if base == 0:
        return added
    follows = base > added and backend.id_to_token(base) is not None
    if backend.id_to_token(base - 1) is None or follows:  # ids with gaps
        return max(backend.get_vocab(with_added_tokens=True).values())
    return max(base - 1, added)
