"""``History``: conversations as trees of messages, saved while they are written."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bitinfer.errors import HistoryLookupError
from bitinfer.history.database import Database
from bitinfer.history.reader import HistoryReader

SAVE_EVERY_S = 0.5  # a reply that is being written is saved this often
_TITLE_LENGTH = 60


def default_path() -> Path:
    """Where the history is, unless the user says otherwise: in the user's data folder."""
    import platformdirs

    return platformdirs.user_data_path("bitinfer", appauthor=False) / "history.db"


class History(HistoryReader):
    """The user's conversations; several processes and threads may have it open at once.

    Every method raises HistoryError if the file cannot be read or written (a full disk, a
    read-only folder). Nothing is half written then: a caller can warn and go on without.
    """

    def __init__(self, database: Database) -> None:
        """Use an open database; `open` is the usual way."""
        super().__init__(database)
        self._unsaved: dict[int, list[str]] = {}  # message id -> pieces
        self._saved_s: dict[int, float] = {}  # message id -> when it was saved last

    @classmethod
    def open(cls, path: Path) -> History:
        """Open the database in ``path``; it is made if it is missing, readable by the user alone.

        A damaged file is renamed to ``NAME.corrupt-DATE``, with a warning, and a new one begun.

        Raises:
            HistoryError: it cannot be written, or a newer version or another program wrote it.
        """
        return cls(Database(path))

    def new_conversation(
        self, *, model: str, system: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> int:
        """Begin a conversation (best with its first message: an empty one is listed too).

        Args:
            model: Name or folder of the model.
            system: Instruction that stands before it.
            settings: Options that it is held with; what JSON can hold.

        Returns:
            Its number.
        """
        now = _now()
        with self._database.writing() as connection:
            row = connection.execute(
                "INSERT INTO conversation(model, system, settings, created, updated)"
                " VALUES (?, ?, ?, ?, ?)",
                (_text(model), system and _text(system), json.dumps(settings or {}), now, now),
            )
        return _new_id(row)

    def add_message(
        self, conversation_id: int, role: str, content: str, parent_id: int | None = None
    ) -> int:
        """Add a message, which becomes the end of the active branch.

        Args:
            conversation_id: What `new_conversation` returned.
            role: "user", "assistant", ...
            content: All of it, or of a reply the beginning; "" if its pieces follow by `append`.
            parent_id: The message before it; None: it begins the conversation, or another branch
                of it. The old branch stays.

        Returns:
            The message's id.

        Raises:
            HistoryLookupError: there is no such conversation, or ``parent_id`` is not in it.
        """
        title = " ".join(_text(content).split())[:_TITLE_LENGTH] if role == "user" else ""
        with self._database.writing() as connection:
            self.conversation(conversation_id)
            _check_message(connection, conversation_id, parent_id)
            row = connection.execute(
                "INSERT INTO message(conversation_id, parent_id, role, content, created)"
                " VALUES (?, ?, ?, ?, ?)",
                (conversation_id, parent_id, role, _text(content), _now()),
            )
            connection.execute(
                "UPDATE conversation SET leaf_id = ?, updated = ?,"
                " title = CASE title WHEN '' THEN ? ELSE title END WHERE id = ?",
                (row.lastrowid, _now(), title, conversation_id),
            )
        self._saved_s[_new_id(row)] = time.monotonic()
        return _new_id(row)

    def append(self, message_id: int, piece: str) -> None:
        """Add a piece to a message; it is saved at once if `SAVE_EVERY_S` have passed."""
        with self._database.reading():
            self._unsaved.setdefault(message_id, []).append(piece)
            due_s = self._saved_s.get(message_id, 0.0) + SAVE_EVERY_S
            if time.monotonic() >= due_s:
                self._save(message_id)

    def finish(self, message_id: int, finish_reason: str) -> None:
        """Save the rest of a message, and why it ended: "stop", "length", "cancelled", ..."""
        with self._database.writing() as connection:
            self._save(message_id)
            connection.execute(
                "UPDATE message SET finish_reason = ? WHERE id = ?", (finish_reason, message_id)
            )
            self._saved_s.pop(message_id, None)

    def set_leaf(self, conversation_id: int, message_id: int | None) -> None:
        """Make ``message_id`` the end of the active branch (undo, another branch); None: empty.

        Raises:
            HistoryLookupError: it is not in that conversation.
        """
        with self._database.writing() as connection:
            _check_message(connection, conversation_id, message_id)
            connection.execute(
                "UPDATE conversation SET leaf_id = ?, updated = ? WHERE id = ?",
                (message_id, _now(), conversation_id),
            )

    def describe(
        self, conversation_id: int, *, system: str | None, settings: Mapping[str, Any]
    ) -> None:
        """Note what a conversation is held with from now on, as in `new_conversation`."""
        with self._database.writing() as connection:
            self.conversation(conversation_id)
            connection.execute(
                "UPDATE conversation SET system = ?, settings = ? WHERE id = ?",
                (system and _text(system), json.dumps(settings), conversation_id),
            )

    def rename(self, conversation_id: int, title: str) -> None:
        """Give a conversation another title."""
        with self._database.writing() as connection:
            self.conversation(conversation_id)
            connection.execute(
                "UPDATE conversation SET title = ? WHERE id = ?", (_text(title), conversation_id)
            )

    def delete(self, conversation_id: int) -> None:
        """Remove a conversation; its text is overwritten in the file, not only unlinked.

        Raises:
            HistoryLookupError: there is none of that number.
        """
        with self._database.writing() as connection:
            self.conversation(conversation_id)
            connection.execute("DELETE FROM conversation WHERE id = ?", (conversation_id,))
            # The index keeps deleted words until its parts are joined.
            connection.execute("INSERT INTO message_words(message_words) VALUES ('optimize')")
        with self._database.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Save what is unsaved and close the file."""
        try:
            for message_id in tuple(self._unsaved):
                self._save(message_id)
        finally:
            self._database.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _save(self, message_id: int) -> None:
        """Write the pieces that wait; on an error they still wait."""
        pieces = self._unsaved.get(message_id)
        if not pieces:
            return
        with self._database.reading() as connection:
            connection.execute(
                "UPDATE message SET content = content || ? WHERE id = ?",
                (_text("".join(pieces)), message_id),
            )
        del self._unsaved[message_id]
        self._saved_s[message_id] = time.monotonic()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _text(text: str) -> str:
    """``text`` with "?" for lone surrogates, which SQLite cannot keep."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _new_id(row: sqlite3.Cursor) -> int:
    assert row.lastrowid is not None
    return row.lastrowid


def _check_message(
    connection: sqlite3.Connection, conversation_id: int, message_id: int | None
) -> None:
    query = "SELECT 1 FROM message WHERE id = ? AND conversation_id = ?"
    if message_id is None or connection.execute(query, (message_id, conversation_id)).fetchone():
        return
    raise HistoryLookupError(
        f"history: expected a message of conversation {conversation_id}, got {message_id}"
    )
