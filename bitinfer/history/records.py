"""What the history hands out: plain facts of conversations and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Conversation:
    """One conversation without its messages.

    Attributes:
        id: Its number; it is never given to another one.
        title: The beginning of the first question, unless it was renamed.
        model: Name or folder of the model.
        system: Instruction that stands before the conversation, or None.
        settings: Options that it was held with; infinities are texts, as JSON has none.
        created, updated: UTC, ISO 8601, such as ``2026-01-31T12:00:00.000000Z``.
        leaf_id: Last message of the active branch; None: nothing was said yet.
        num_messages: Of all branches.
    """

    id: int
    title: str
    model: str
    system: str | None
    settings: dict[str, Any]
    created: str
    updated: str
    leaf_id: int | None
    num_messages: int


@dataclass(frozen=True)
class StoredMessage:
    """One message.

    Attributes:
        parent_id: The message that it follows; None: the first of a branch.
        role: "user" or "assistant", or what the model's template knows.
        finish_reason: Why a reply ended; None: it is being written, or the program was killed.
        created: UTC, ISO 8601.
    """

    id: int
    conversation_id: int
    parent_id: int | None
    role: str
    content: str
    finish_reason: str | None
    created: str


@dataclass(frozen=True)
class Hit:
    """A message that a search found, with the words around the place."""

    conversation_id: int
    title: str
    message_id: int
    role: str
    excerpt: str
    created: str
