"""Search in all messages: by words with the full-text index, else by any part of the text."""

from __future__ import annotations

import sqlite3

from bitinfer.history.records import Hit

_EXCERPT_BEFORE, _EXCERPT_LENGTH = 30, 160  # characters

_SELECT = """
    SELECT m.conversation_id, c.title, m.id AS message_id, m.role, m.content, m.created
    FROM message m JOIN conversation c ON c.id = m.conversation_id WHERE m.id IN ({found})
    ORDER BY m.id DESC"""
_BY_WORDS = (
    "SELECT rowid FROM message_words WHERE message_words MATCH ? ORDER BY rowid DESC LIMIT ?"
)
_BY_PART = "SELECT id FROM message WHERE instr(lower(content), lower(?)) ORDER BY id DESC LIMIT ?"


def search(connection: sqlite3.Connection, text: str, limit: int) -> tuple[Hit, ...]:
    """What `History.search` says; ``text`` is never syntax of the index."""
    words = text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ").split()
    if not words:
        return ()
    quoted = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
    rows = connection.execute(_SELECT.format(found=_BY_WORDS), (quoted, limit)).fetchall()
    if not rows:
        part = " ".join(words)
        rows = connection.execute(_SELECT.format(found=_BY_PART), (part, limit)).fetchall()
    return tuple(_hit(row, words) for row in rows)


def _hit(row: sqlite3.Row, words: list[str]) -> Hit:
    facts = dict(row)
    content = facts.pop("content")
    return Hit(**facts, excerpt=excerpt(content, words))


def excerpt(content: str, words: list[str]) -> str:
    """The part of ``content`` around the first of ``words`` that is found, on one line."""
    line = " ".join(content.split())
    folded = line.lower()
    places = [at for word in words if (at := folded.find(word.lower())) >= 0]
    start = max(min(places, default=0) - _EXCERPT_BEFORE, 0)
    if start:
        start = line.find(" ", start) + 1 or start  # begin with a whole word
    part = line[start : start + _EXCERPT_LENGTH]
    return "…" * (start > 0) + part + "…" * (start + len(part) < len(line))
