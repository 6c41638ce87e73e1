"""What the tests of the history share: a conversation to keep, and what it holds."""

from __future__ import annotations

import os
import sys

from bitinfer.history import History

# For scripts that import bitinfer as this process does.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def talk(history: History, *texts: str, system: str | None = None) -> int:
    """A conversation of questions and answers in turn."""
    number = history.new_conversation(model="tales-14m", system=system, settings={"seed": 3})
    parent = None
    for n, text in enumerate(texts):
        role = "assistant" if n % 2 else "user"
        parent = history.add_message(number, role, text, parent)
    return number


def said(history: History, number: int) -> list[str]:
    """The texts of its active branch."""
    return [message.content for message in history.messages(number)]
