"""Conversations in the user's own SQLite database; nothing else in bitinfer knows of SQL.

`History` is the whole interface: the command line uses it, and whatever else shows conversations.
"""

from bitinfer.history.conversations import SAVE_EVERY_S, History, default_path
from bitinfer.history.records import Conversation, Hit, StoredMessage

__all__ = ["SAVE_EVERY_S", "Conversation", "History", "Hit", "StoredMessage", "default_path"]
