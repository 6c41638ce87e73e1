"""``DraftModel``: drafts by a smaller model of the same vocabulary, whose cache is kept in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import TokenizerError
from bitinfer.prefix_cache import Lease, PrefixCache
from bitinfer.speculation.pace import LENGTHS
from bitinfer.tokenizer import Tokenizer

# (logits (vocab_size,), how many tokens ahead) -> the token that is likely to be chosen there
Guess = Callable[[NDArray[np.float32], int], int]


class DraftModel:
    """Runs the draft model ahead of the text of one generation.

    Attributes:
        hopes: See ``PromptLookup``; a model is always equally sure.
    """

    hopes = (0.7,)

    def __init__(
        self, caches: PrefixCache, prompt_ids: Sequence[int], guess: Guess, vocab_size: int
    ) -> None:
        """Begin after a prompt; nothing is run yet.

        Args:
            caches: Of the draft model.
            prompt_ids: The whole prompt.
            guess: Chooses a token of the draft.
            vocab_size: Ids below it may be chosen.
        """
        self._caches = caches
        self._ids = list(prompt_ids)
        self._num_prompt = len(prompt_ids)
        self._guess = guess
        self._vocab_size = vocab_size
        self._lease: Lease | None = None
        self._draft: list[int] = []

    def extend(self, token_ids: Sequence[int]) -> None:
        """Take tokens of the reply, and drop what the cache holds of a draft that was wrong."""
        if self._lease is not None:
            right = sum(a == b for a, b in zip(token_ids, self._draft, strict=False))
            cache = self._lease.cache
            cache.trim(min(cache.length, len(self._ids) + right))
        self._ids += token_ids
        self._draft = []

    def outlook(self) -> int | None:
        """None while the model catches up with a prompt, a chunk each time, and near its end."""
        if self._lease is None:
            self._lease = self._caches.lend(self._ids)
        cache, engine = self._lease.cache, self._caches.engine
        if len(self._ids) + LENGTHS[-1] > cache.capacity:
            return None
        new = self._ids[cache.length :]
        if len(new) > engine.prefill_chunk:
            engine.forward([new[: engine.prefill_chunk]], [cache], logits="none")
            return None
        return 0

    def draft(self, count: int) -> list[int]:
        """The next ``count`` tokens as the draft model continues the text."""
        assert self._lease is not None  # outlook comes first
        cache, engine = self._lease.cache, self._caches.engine
        new = self._ids[cache.length :]
        for ahead in range(count):
            logits = engine.forward([new], [cache], logits="last")[0]
            new = [self._guess(logits[: self._vocab_size], ahead)]
            self._draft += new
        return list(self._draft)

    def close(self) -> None:
        """Leave the cache to the next generation."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(self._ids[self._num_prompt :])


def check_vocabulary(draft: Tokenizer, target: Tokenizer, draft_name: str, name: str) -> None:
    """Refuse a draft model whose token ids mean other tokens.

    Raises:
        TokenizerError: so it is; the message names both models and the first difference.
    """
    theirs, ours = draft.vocabulary, target.vocabulary
    if theirs == ours:
        return
    token_id = min(i for i in theirs.keys() | ours.keys() if theirs.get(i) != ours.get(i))
    got, wanted = (repr(v[token_id]) if token_id in v else "none" for v in (theirs, ours))
    raise TokenizerError(
        f"draft model {draft_name}: expected the vocabulary of {name} ({len(ours)} tokens, "
        f"{token_id} is {wanted}), got another ({len(theirs)} tokens, {token_id} is {got}): "
        "take a draft model of the same tokenizer"
    )
