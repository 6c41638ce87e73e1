"""A model that says what a script says, for tests of the chat: a token is a character."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from bitinfer.errors import ContextLengthError
from bitinfer.generate import Completion, Usage
from bitinfer.sampling import SamplingParams


class ScriptedStream(Iterator[str]):
    def __init__(self, pieces: list[str], prompt_tokens: int, max_tokens: int) -> None:
        self._pieces = iter(pieces[:max_tokens])
        self._cut = len(pieces) > max_tokens
        self._prompt_tokens = prompt_tokens
        self._told: list[str] = []
        self.closed = False

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._told.append(piece)
        return piece

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    @property
    def completion(self) -> Completion:
        return Completion(
            text="".join(self._told),
            token_ids=(),
            finish_reason="length" if self._cut else "stop",
            usage=Usage(self._prompt_tokens, 0, len(self._told), 0.5, 0.25),
        )


class ScriptedModel:
    """Answers with ``replies`` in turn, in the pieces given, then with "yes"."""

    def __init__(
        self, *replies: Sequence[str], template: str = "", context_length: int = 1000
    ) -> None:
        self.replies = list(replies)
        self.prompts: list[str] = []
        self.options: list[dict[str, object]] = []
        self.sampling = SamplingParams(temperature=0.5)
        self.max_tokens = 50
        self.context_length = context_length
        self.chat_template = SimpleNamespace(source=template)
        self.has_chat_template = True
        self.ending = "assistant:"
        self.tokenizer = SimpleNamespace(
            decode=lambda ids, skip_special_tokens: "".join(map(chr, ids))
        )

    def encode_chat(self, messages) -> list[int]:
        text = "".join(f"{m['role']}:{m['content']}\n" for m in messages) + self.ending
        return list(map(ord, text))

    def stream(self, prompt, *, max_tokens=None, **options) -> ScriptedStream:
        if len(prompt) >= self.context_length:
            raise ContextLengthError("prompt: too long")
        self.prompts.append("".join(map(chr, prompt)))
        self.options.append(options)
        pieces = list(self.replies.pop(0)) if self.replies else ["yes"]
        return ScriptedStream(pieces, len(prompt), max_tokens or self.max_tokens)
