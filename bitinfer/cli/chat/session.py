"""``Session``: the turns of a conversation and how they change; prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitinfer.cli.chat.recorder import Recorder
from bitinfer.cli.chat.settings import ChatSettings
from bitinfer.thinking import CLOSE, OPEN, opens_thinking, split_thinking

if TYPE_CHECKING:
    from bitinfer.generate import Completion
    from bitinfer.model import Model


@dataclass(frozen=True)
class Turn:
    """A question or an answer."""

    role: str
    content: str
    message: int | None = None  # its id in the history


class Session:
    """A conversation with a model, kept short enough for the context.

    The model keeps its cache between turns, so only what is new is run.

    Attributes:
        model, settings: As given.
        system: Instruction that stands before the conversation; "" for none.
        turns: All that was said, also what the model does not see any more.
        completion: Figures of the last reply; None before the first.
    """

    def __init__(
        self,
        model: Model,
        settings: ChatSettings,
        recorder: Recorder,
        *,
        system: str = "",
        warn: Callable[[str], None],
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Begin; ``interruptible`` surrounds what Ctrl-C may end by an exception."""
        self.model = model
        self.settings = settings
        self.system = system
        self.turns: list[Turn] = []
        self.completion: Completion | None = None
        self._recorder = recorder
        self._warn = warn
        self._interruptible = interruptible
        self._start = 0  # the first turn that the model sees
        self._retries = 0  # of the last question

    def clear(self) -> None:
        """Begin another conversation."""
        self.turns = []
        self._start = 0
        self._recorder.begin()

    def load(self, turns: Iterable[Turn]) -> None:
        """Begin another conversation with ``turns``, which are kept in the history."""
        self.clear()
        for turn in turns:
            self._add(turn.role, turn.content)

    def resume(self, conversation: int, turns: Iterable[Turn]) -> None:
        """Go on with a conversation of the history."""
        self.clear()
        self.turns = list(turns)
        self._recorder.resume(conversation)

    @property
    def question(self) -> str | None:
        """The last question."""
        return next((t.content for t in reversed(self.turns) if t.role == "user"), None)

    def ask(self, text: str) -> Generator[str, None, None]:
        """Yield the reply to ``text`` in pieces; if it is ended early they are the reply.

        A question that gets no answer at all is forgotten.
        """
        self._retries = 0
        yield from self._reply(self.turns, text)

    def retry(self) -> Generator[str, None, None]:
        """Another reply to the last question; the old one stays if there is none."""
        self._retries += 1
        yield from self._reply(self._before_question(answered=True), None)

    def edit(self, text: str) -> Generator[str, None, None]:
        """Ask ``text`` in place of the last question."""
        self._retries = 0
        yield from self._reply(self._before_question(), text)

    def undo(self) -> None:
        """Forget the last question and its answer."""
        self.turns = self._before_question()
        self._go_back()

    def ignores_system(self) -> bool:
        """Whether the model's template leaves the system text out."""
        plain = [{"role": "user", "content": "?"}]
        told = [{"role": "system", "content": self.system}, *plain]
        return self.model.encode_chat(told) == self.model.encode_chat(plain)

    def _before_question(self, *, answered: bool = False) -> list[Turn]:
        """The turns before the last question; ``answered``: with it, before its answer."""
        last = max(n for n, turn in enumerate(self.turns) if turn.role == "user")
        return self.turns[: last + answered]

    def _reply(self, turns: list[Turn], question: str | None) -> Generator[str, None, None]:
        """Make the turns ``turns``, the question if it is new, and the reply to it."""
        old, self.turns = self.turns, list(turns)
        told: list[str] = []
        reason = "cancelled"
        answer: int | None = None
        try:
            if question is not None:
                self._add("user", question)
            for piece in self._pieces():
                if not told:
                    answer = self._record("assistant", "")
                told.append(piece)
                self._recorder.piece(answer, piece)
                yield piece
            reason = self.completion.finish_reason if self.completion else reason
        finally:
            if told:
                self._recorder.finish(answer, reason)
                self.turns.append(Turn("assistant", "".join(told), answer))
            else:
                self.turns = old
                self._go_back()

    def _pieces(self) -> Generator[str, None, None]:
        """Run the model."""
        with self._interruptible():
            ids = self._fitting_ids()
            stream = self.model.stream(ids, **self._options())
        prefix = OPEN + "\n" if opens_thinking(self.model.tokenizer.decode, ids) else ""
        try:
            with stream:
                while True:
                    with self._interruptible():
                        piece = next(stream, None)
                    if piece is None:
                        return
                    yield prefix + piece
                    prefix = ""
        finally:
            self.completion = stream.completion

    def _options(self) -> dict[str, Any]:
        options = dict(self.settings.sampling)
        if self._retries and options.get("seed") is not None:
            options["seed"] = (options["seed"] + self._retries) % 2**64
        return options

    def _fitting_ids(self) -> list[int]:
        """The prompt; where it leaves no room for a reply, the oldest turns are left out.

        Half of the context is freed at once, since each time all that stays must be run again.
        """
        length = self.model.context_length
        room = min(self.settings["max_tokens"], length // 4)
        self._start = self._start if self._start < len(self.turns) else 0
        start = self._start
        ids = self._encode()
        if len(ids) > length - room:
            questions = [n for n, turn in enumerate(self.turns) if turn.role == "user"]
            for self._start in (n for n in questions if n > start):
                ids = self._encode()
                if len(ids) <= length // 2:
                    break
        if dropped := sum(turn.role == "user" for turn in self.turns[start : self._start]):
            turns = "turn" if dropped == 1 else f"{dropped} turns"
            self._warn(f"context is full: the model forgot the oldest {turns}")
        return ids

    def _encode(self) -> list[int]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns[self._start :]:
            messages.append({"role": turn.role, "content": self._sent(turn)})
        return self.model.encode_chat(messages)

    def _sent(self, turn: Turn) -> str:
        """What the model sees of a turn: thinking only where its template knows of it."""
        template = self.model.chat_template
        handled = template is not None and CLOSE in template.source and CLOSE in turn.content
        if turn.role != "assistant" or handled:
            return turn.content
        return split_thinking(turn.content)[1]

    def _add(self, role: str, text: str) -> None:
        self.turns.append(Turn(role, text, self._record(role, text)))

    def _record(self, role: str, text: str) -> int | None:
        return self._recorder.message(role, text, self._last_message(), self.system or None)

    def _go_back(self) -> None:
        self._recorder.go_back(self._last_message())

    def _last_message(self) -> int | None:
        return self.turns[-1].message if self.turns else None
