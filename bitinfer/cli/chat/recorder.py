"""Keeps what a chat says in the history, as it is said; without a history it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from bitinfer.errors import HistoryError

if TYPE_CHECKING:
    from bitinfer.history import History

Result = TypeVar("Result")


class Recorder:
    """One conversation in the history, begun with its first message.

    When the history fails (a full disk), it says so once and the chat goes on without.
    """

    def __init__(
        self,
        history: History | None,
        model: str,
        settings: Callable[[], Mapping[str, Any]],
        warn: Callable[[str], None],
    ) -> None:
        """Keep in ``history``; ``settings`` gives those that are in force."""
        self._history = history
        self._model = model
        self._settings = settings
        self._warn = warn
        self._conversation: int | None = None
        self._held_with: tuple[str | None, dict[str, Any]] | None = None  # as it was last noted

    def resume(self, conversation: int) -> None:
        """Add to a conversation that is there."""
        self._conversation = conversation

    def begin(self) -> None:
        """Make what follows another conversation."""
        self._conversation = None

    def message(self, role: str, text: str, parent: int | None, system: str | None) -> int | None:
        """Add a message after ``parent``; its id, or None where nothing is kept."""

        def add(history: History) -> int:
            held_with = (system, dict(self._settings()))
            if self._conversation is None:
                self._conversation = history.new_conversation(
                    model=self._model, system=held_with[0], settings=held_with[1]
                )
            elif held_with != self._held_with:
                history.describe(self._conversation, system=held_with[0], settings=held_with[1])
            self._held_with = held_with
            return history.add_message(self._conversation, role, text, parent)

        return self._try(add)

    def piece(self, message: int | None, text: str) -> None:
        """Add to a reply."""
        if message is not None:
            self._try(lambda history: history.append(message, text))

    def finish(self, message: int | None, reason: str) -> None:
        """End a reply."""
        if message is not None:
            self._try(lambda history: history.finish(message, reason))

    def go_back(self, message: int | None) -> None:
        """Take up the conversation after ``message``; None: at its beginning."""
        conversation = self._conversation
        if conversation is not None:
            self._try(lambda history: history.set_leaf(conversation, message))

    def _try(self, action: Callable[[History], Result]) -> Result | None:
        if self._history is None:
            return None
        try:
            return action(self._history)
        except HistoryError as error:
            self._history = None
            self._warn(f"{error}; what follows is not kept")
            return None
