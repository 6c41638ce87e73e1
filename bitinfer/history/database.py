"""The history's file: private modes, locks, damage; what is in it is told by `schema`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from bitinfer.errors import HistoryError
from bitinfer.history import schema

_BUSY_S = 10.0  # how long one process waits while another one writes
_COMPANIONS = ("-wal", "-shm", "-journal")  # files that SQLite keeps beside its database


class Database:
    """One open database, for several threads."""

    def __init__(self, path: Path) -> None:
        """Open the database in ``path``, made or brought up to date where needed.

        A damaged file is renamed to ``NAME.corrupt-DATE``, with a warning, and a new one begun.

        Raises:
            HistoryError: it cannot be opened or written, or belongs to a newer version or to
                another program (and is left as it is).
        """
        self.path = path
        self._lock = threading.RLock()
        with _storage_errors(path):
            self._connection = _connect(path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Use the connection alone; what SQLite raises becomes `HistoryError`."""
        with self._lock, _storage_errors(self.path):
            yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The same, and all that is written is written, or nothing."""
        with self.reading() as connection, connection:  # commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    def close(self) -> None:
        """Close the file."""
        with self.reading() as connection:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    _make_private(path)
    try:
        return _open_checked(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as damage:
        kept = _move_aside(path)
        warnings.warn(
            f"history: {path} is damaged ({damage}): it was renamed to {kept.name} and a new "
            "history begun",
            stacklevel=2,
        )
        _make_private(path)
        return _open_checked(path)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system and SQLite raise into `HistoryError`."""
    try:
        yield
    except OSError as cause:
        problem = (cause.strerror or str(cause)).lower()
        raise HistoryError(f"history: {path}: {problem}") from cause
    except sqlite3.Error as cause:
        raise HistoryError(f"history: {path}: {cause}") from cause


def _make_private(path: Path) -> None:
    """Make the file, if it is missing, and close it and its companions to other users.

    SQLite gives new companions the mode of the database. A folder is made with mode 0700; one
    that exists already is not changed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, *(_companion(path, suffix) for suffix in _COMPANIONS)):
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _open_checked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        schema.check_owner(connection, path)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: a crash tears nothing
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what was deleted is overwritten
        schema.migrate(connection, path)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(" ".join(verdict.split()))
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turn to a write-ahead log. For this SQLite does not wait while others use a new file."""
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _move_aside(path: Path) -> Path:
    """Rename a damaged file and its companions (SQLite would replay a left WAL into a new file)."""
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    names = (
        path.with_name(f"{path.name}.corrupt-{day}{n}")
        for n in ("", *map("-{}".format, range(2, 1000)))
    )
    kept = next(name for name in names if not name.exists())
    path.replace(kept)
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            _companion(path, suffix).replace(_companion(kept, suffix))
    return kept


def _companion(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
