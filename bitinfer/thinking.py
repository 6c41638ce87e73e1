"""Think-blocks of reasoning models: ``<think>…</think>`` before the answer, split while it streams.

A block counts only at the very start of a reply, so that an answer may speak of the tag. Some chat
templates open the block themselves; the reply then begins inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"


class Part(NamedTuple):
    """A piece of a reply."""

    thinking: bool
    text: str  # never empty


class ThinkingSplitter:
    """Splits a reply that comes in pieces into thinking and answer.

    What comes out does not depend on where the pieces are cut. White space around the thinking is
    dropped; an answer without thinking before it stays as it is.
    """

    def __init__(self, opened: bool = False) -> None:
        """Begin a reply; ``opened``: the prompt ends with an open think-block."""
        self._held = OPEN if opened else ""  # undecided: a tag's beginning, or white space
        self._state = "start"  # then "thinking", "gap" (white space behind it), "answer"
        self._said = False  # some thinking came out

    @property
    def thinking(self) -> bool:
        """Whether the reply is inside its think-block."""
        return self._state == "thinking" or (self._state == "start" and self._held == OPEN)

    def add(self, piece: str) -> list[Part]:
        """Take a piece; return the parts that are certain."""
        self._held += piece
        return [part for part in self._advance() if part.text]

    def finish(self) -> list[Part]:
        """Return what waits at the end of the reply; an open block is thinking to its end."""
        self._advance_start(whole=True)
        held, self._held = self._held, ""
        if self._state == "thinking":
            held = held.rstrip() if self._said else held.strip()
        return [Part(self._state == "thinking", held)] if held and self._state != "gap" else []

    def _advance(self) -> Iterator[Part]:
        if self._state == "start":
            self._advance_start()
        if self._state == "thinking":
            yield Part(True, self._take_thinking())
        if self._state == "gap" and (rest := self._held.lstrip()):
            self._held, self._state = rest, "answer"
        if self._state == "answer":
            held, self._held = self._held, ""
            yield Part(False, held)

    def _advance_start(self, whole: bool = False) -> None:
        """Decide whether the reply begins with a think-block, as soon as that is certain."""
        if self._state != "start":
            return
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self._held, self._state = begun[len(OPEN) :], "thinking"
        elif whole or not OPEN.startswith(begun):
            self._state = "answer"

    def _take_thinking(self) -> str:
        thought, closed, rest = self._held.partition(CLOSE)
        if closed:
            self._held, self._state = rest, "gap"
            kept = thought.rstrip()
        else:
            cut = len(thought) - _begun(thought, CLOSE)
            kept = thought[:cut].rstrip()
            self._held = thought[len(kept) :]
        out = kept if self._said else kept.lstrip()
        self._said = self._said or bool(out)
        return out


def opens_thinking(decode: Callable[[Sequence[int], bool], str], prompt: Sequence[int]) -> bool:
    """Whether a prompt ends with an open think-block, as some chat templates begin the reply.

    Args:
        decode: The tokenizer's; False keeps control tokens.
        prompt: Token ids.
    """
    return decode(prompt[-2 * len(OPEN) :], False).rstrip().endswith(OPEN)


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """Thinking and answer of a whole reply; "" for what it lacks."""
    splitter = ThinkingSplitter(opened)
    parts = [*splitter.add(text), *splitter.finish()]
    thinking = "".join(part.text for part in parts if part.thinking)
    return thinking, "".join(part.text for part in parts if not part.thinking)


def _begun(text: str, tag: str) -> int:
    """Length of the longest end of ``text`` that begins ``tag``."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
