"""The history's tables and triggers, and how a file of an older version gets them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bitinfer.errors import HistoryError

_APPLICATION_ID = 0x62697431  # "bit1": tells our files from those of other programs

# One tuple of statements per version; a file of version n has run the first n. Never edit one that
# was released: append.
_MIGRATIONS = (
    (
        """CREATE TABLE conversation (
            id INTEGER PRIMARY KEY AUTOINCREMENT,  -- a number is never used again
            title TEXT NOT NULL DEFAULT '',
            model TEXT NOT NULL,
            system TEXT,
            settings TEXT NOT NULL,  -- a JSON object
            created TEXT NOT NULL,   -- UTC, ISO 8601
            updated TEXT NOT NULL,
            leaf_id INTEGER REFERENCES message(id) ON DELETE SET NULL  -- end of the active branch
        )""",
        """CREATE TABLE message (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            conversation_id INTEGER NOT NULL REFERENCES conversation(id) ON DELETE CASCADE,
            parent_id INTEGER REFERENCES message(id) ON DELETE CASCADE,
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            finish_reason TEXT,  -- of a reply; NULL while it is written, or if that was cut off
            created TEXT NOT NULL
        )""",
        "CREATE INDEX message_of_conversation ON message(conversation_id)",
        "CREATE INDEX message_of_parent ON message(parent_id)",
        "CREATE INDEX conversation_by_date ON conversation(updated)",
        """CREATE VIRTUAL TABLE message_words USING fts5(
            content, content = 'message', content_rowid = 'id',
            tokenize = 'unicode61 remove_diacritics 2')""",
        """CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
            INSERT INTO message_words(rowid, content) VALUES (new.id, new.content);
        END""",
        """CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
            INSERT INTO message_words(message_words, rowid, content)
                VALUES ('delete', old.id, old.content);
        END""",
        """CREATE TRIGGER message_changed AFTER UPDATE OF content ON message BEGIN
            INSERT INTO message_words(message_words, rowid, content)
                VALUES ('delete', old.id, old.content);
            INSERT INTO message_words(rowid, content) VALUES (new.id, new.content);
        END""",
    ),
)
VERSION = len(_MIGRATIONS)


def check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours before anything is written."""
    # In this order: another process may make tables and owner, together, between the two.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION_ID and tables:
        raise HistoryError(f"history: {path}: expected bitinfer's history, got another database")
    version = _version(connection)
    if version > VERSION:
        raise HistoryError(
            f"history: {path}: expected version {VERSION} or older, got {version}: "
            "update bitinfer, or name another file"
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or change those of an older version.

    Raises:
        HistoryError: SQLite cannot do full-text search here.
    """
    if _version(connection) == VERSION:
        return
    if not connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone():
        raise HistoryError(
            f"history: {path}: this Python's SQLite has no FTS5: install one that has"
        )
    with connection:  # ends the transaction: all or nothing
        connection.execute("BEGIN IMMEDIATE")
        done = _version(connection)  # asked again: now nobody else writes
        for statements in _MIGRATIONS[done:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
