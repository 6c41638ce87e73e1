"""What can be asked of the history: lists, conversations, search, export."""

from __future__ import annotations

import json
from typing import Literal

from bitinfer.errors import HistoryLookupError
from bitinfer.history import export
from bitinfer.history.database import Database
from bitinfer.history.records import Conversation, Hit, StoredMessage
from bitinfer.history.search import search


class HistoryReader:
    """The questions of `History`; each raises HistoryError if the file cannot be read."""

    def __init__(self, database: Database) -> None:
        """Read an open database."""
        self._database = database

    def conversation(self, conversation_id: int) -> Conversation:
        """One conversation.

        Raises:
            HistoryLookupError: there is none of that number.
        """
        found = self._conversations("WHERE id = ?", (conversation_id,))
        if not found:
            raise HistoryLookupError(
                f"history: expected the number of a conversation, got {conversation_id}"
            )
        return found[0]

    def latest(self) -> Conversation | None:
        """The conversation that was changed last."""
        return next(iter(self.list(limit=1)), None)

    def list(self, limit: int | None = None) -> tuple[Conversation, ...]:
        """Conversations, the one that was changed last first; at most ``limit``."""
        order = "ORDER BY updated DESC, id DESC LIMIT ?"
        return self._conversations(order, (-1 if limit is None else limit,))

    def messages(self, conversation_id: int) -> tuple[StoredMessage, ...]:
        """The active branch, oldest first."""
        by_id = {message.id: message for message in self.all_messages(conversation_id)}
        branch: list[StoredMessage] = []
        at = self.conversation(conversation_id).leaf_id
        while at is not None:
            branch.append(by_id[at])
            at = by_id[at].parent_id
        return tuple(branch[::-1])

    def all_messages(self, conversation_id: int) -> tuple[StoredMessage, ...]:
        """The messages of all branches, in the order in which they were added."""
        query = "SELECT * FROM message WHERE conversation_id = ? ORDER BY id"
        with self._database.reading() as connection:
            rows = connection.execute(query, (conversation_id,)).fetchall()
        return tuple(StoredMessage(**row) for row in rows)

    def message(self, message_id: int) -> StoredMessage:
        """One message, of whichever conversation.

        Raises:
            HistoryLookupError: there is none of that number.
        """
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM message WHERE id = ?", (message_id,)).fetchone()
        if row is None:
            raise HistoryLookupError(f"history: expected the number of a message, got {message_id}")
        return StoredMessage(**row)

    def state(self) -> tuple[int, int]:
        """Two numbers, one of which changes whenever somebody writes: this object, or any other."""
        with self._database.reading() as connection:
            (by_others,) = connection.execute("PRAGMA data_version").fetchone()
            return by_others, connection.total_changes

    def search(self, text: str, limit: int = 50) -> tuple[Hit, ...]:
        """Messages with all words of ``text`` (or their beginnings), the newest first.

        Upper case and accents do not count. If no message has them as words, those are found that
        contain ``text`` itself anywhere (parts of words, Chinese, punctuation).
        """
        with self._database.reading() as connection:
            return search(connection, text, limit)

    def export(self, conversation_id: int, format: Literal["json", "markdown"]) -> str:  # noqa: A002
        """A conversation as one text: "json" with every branch, "markdown" with the active one."""
        conversation = self.conversation(conversation_id)
        if format == "json":
            return export.to_json(conversation, self.all_messages(conversation_id))
        return export.to_markdown(conversation, self.messages(conversation_id))

    def _conversations(self, rest: str, values: tuple[int, ...]) -> tuple[Conversation, ...]:
        count = "(SELECT count(*) FROM message WHERE conversation_id = c.id) AS num_messages"
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT *, {count} FROM conversation c {rest}",  # noqa: S608 (our own words)
                values,
            ).fetchall()
        return tuple(
            Conversation(**{**row, "settings": json.loads(row["settings"], parse_constant=str)})
            for row in rows
        )
