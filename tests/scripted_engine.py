"""An engine that says what a script says, in place of a model, with the embedded tokenizer."""

from __future__ import annotations

import numpy as np

import bitinfer
from bitinfer.errors import PromptError
from bitinfer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(bitinfer.default_model(), vocab_size=4096, eos_token_ids=[2, 3])
PROMPT = TOKENIZER.encode("Once")


class ScriptedCache:
    def __init__(self, capacity: int) -> None:
        self.length, self.capacity = 0, capacity

    def trim(self, length: int) -> None:
        self.length = length


class ScriptedEngine:
    """Says the ids of ``script`` one after the other, whatever the prompt; notes its calls."""

    prefill_chunk = 4
    vocab_size = 4096
    context_length = 64

    def __init__(self, script: list[int]) -> None:
        self.spec = {"max_position_embeddings": 128}
        self.script = iter(script)
        self.calls: list[tuple[list[int], str]] = []

    def check_ids(self, token_ids) -> np.ndarray:
        if not len(token_ids) or max(token_ids) >= self.vocab_size:
            raise PromptError("token_ids")
        return np.asarray(token_ids, np.int32)

    def forward(self, token_ids, caches, *, logits="last", top_k=0, vocab_size=0):
        self.calls.append((list(map(int, token_ids[0])), logits))
        caches[0].length += len(token_ids[0])
        if logits == "none":
            return np.empty((0, self.vocab_size), np.float32)
        row = np.zeros((1, self.vocab_size), np.float32)
        row[0, next(self.script)] = 1
        return row

    def decode(self, token_id, cache, out, *, top_k=0, vocab_size=0) -> None:
        row = self.forward([[token_id]], [cache], top_k=top_k, vocab_size=vocab_size)
        out[:] = row[0]
