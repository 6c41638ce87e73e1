"""A conversation as text: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from bitinfer.history.records import Conversation, StoredMessage


def to_json(conversation: Conversation, messages: Sequence[StoredMessage]) -> str:
    """One object: the conversation's facts and ``messages``, those of all branches."""
    facts = {**asdict(conversation), "messages": [asdict(message) for message in messages]}
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def to_markdown(conversation: Conversation, messages: Sequence[StoredMessage]) -> str:
    """A title, who spoke as headings, and what was said as it is."""
    parts = [f"# {conversation.title or 'Conversation'}"]
    parts.append(f"{conversation.model}, {conversation.created[:10]}")
    if conversation.system:
        parts += ["## System", conversation.system]
    for message in messages:
        parts += [f"## {message.role.capitalize()}", message.content.strip()]
    return "\n\n".join(parts) + "\n"
