"""The database file of conversations: private, versioned, and what damage does to it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conversations import ENVIRONMENT, said, talk

from bitinfer.errors import HistoryError
from bitinfer.history import History, default_path, schema


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_all_files_are_private(tmp_path, umask) -> None:
    before = os.umask(umask)
    try:
        path = tmp_path / "data" / "history.db"
        with History.open(path) as history:
            talk(history, "secret")
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("history.db", "history.db-wal", "history.db-shm"), 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_file_that_others_can_read_is_closed_to_them(path) -> None:
    with History.open(path):
        pass
    path.chmod(0o644)
    with History.open(path):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["text", "header", "middle"])
def test_a_damaged_file_is_kept_aside_and_a_new_one_begun(path, damage) -> None:
    with History.open(path) as history:
        for n in range(50):
            talk(history, f"number {n} " * 40)
    whole = path.read_bytes()
    bad = {
        "text": b"not a database at all\n" * 9,
        "header": b"\0" * 100 + whole[100:],
        "middle": whole[:8192] + b"\xff" * 8192 + whole[16384:],
    }[damage]
    path.write_bytes(bad)
    for again in range(2):
        path.write_bytes(bad)
        with pytest.warns(UserWarning, match=r"damaged .*renamed to history\.db\.corrupt-20"):
            history = History.open(path)
        with history:
            assert history.list() == ()
            talk(history, "fresh")
        kept = sorted(path.parent.glob("history.db.corrupt-*"))
        assert [file.read_bytes() for file in kept] == [bad] * (again + 1)


def test_what_another_process_has_open_goes_aside_with_the_damaged_file(path) -> None:
    with History.open(path) as history:
        talk(history, "old")
        history.delete(1)  # empties the write-ahead log, which could heal the file
        with path.open("r+b") as file:
            file.write(b"\xff" * 4096)
        with pytest.warns(UserWarning, match="damaged"):
            second = History.open(path)
        with second:
            talk(second, "fresh")
            aside = {
                file.name.split("corrupt-")[-1][10:] for file in path.parent.glob("*.corrupt-*")
            }
            assert aside == {"", "-wal", "-shm"}


def test_a_file_of_an_older_version_is_brought_up_to_date(path, monkeypatch) -> None:
    with History.open(path) as history:
        talk(history, "old")
    step = ("ALTER TABLE message ADD COLUMN liked INTEGER", "UPDATE message SET liked = 1")
    monkeypatch.setattr(schema, "_MIGRATIONS", (*schema._MIGRATIONS, step))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    History.open(path).close()
    other = sqlite3.connect(path)
    assert other.execute("SELECT content, liked FROM message").fetchall() == [("old", 1)]
    assert other.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    other.close()


def test_a_step_to_a_new_version_that_fails_changes_nothing(path, monkeypatch) -> None:
    with History.open(path) as history:
        talk(history, "old")
    step = ("ALTER TABLE message ADD COLUMN liked INTEGER", "UPDATE missing SET liked = 1")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", (*schema._MIGRATIONS, step))
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        with pytest.raises(HistoryError, match="no such table: missing"):
            History.open(path)
    with History.open(path) as history:
        assert said(history, 1) == ["old"]


def test_a_newer_version_is_left_alone(path) -> None:
    with History.open(path) as history:
        talk(history, "a")
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 7")
    other.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="version 1 or older, got 7: update bitinfer"):
        History.open(path)
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_alone(tmp_path) -> None:
    path = tmp_path / "places.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE places(url)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="expected bitinfer's history, got another database"):
        History.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", ["a file as folder", "a folder as file"])
def test_a_place_that_cannot_hold_a_file_is_an_error(tmp_path, where) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "history.db" if where == "a file as folder" else tmp_path
    with pytest.raises(HistoryError, match=r"directory|exists"):
        History.open(path)


def test_a_read_only_folder_is_an_error(tmp_path) -> None:
    script = """
import os, sys
from pathlib import Path
from bitinfer.errors import HistoryError
from bitinfer.history import History
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    History.open(Path(sys.argv[1]))
except HistoryError as error:
    print(error)
"""
    tmp_path.chmod(0o500)
    command = [sys.executable, "-c", script, str(tmp_path / "history.db")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == f"history: {tmp_path / 'history.db'}: permission denied\n", done.stderr


def test_a_full_disk_is_an_error_and_tears_nothing(path) -> None:
    """A limit on the file's size stands in for the disk; SQLite sees real failing writes."""
    script = """
import resource, signal, sys
from pathlib import Path
from bitinfer.errors import HistoryError
from bitinfer.history import History
history = History.open(Path(sys.argv[1]))
number = history.new_conversation(model="m")
history.add_message(number, "user", "before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    for _ in range(9):
        history.add_message(number, "user", "x " * 10_000)
except HistoryError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"history: {path}: ")
    with History.open(path) as history:
        texts = [message.content for message in history.all_messages(1)]
        assert texts[0] == "before"
        assert set(texts[1:]) == {"x " * 10_000}


def test_default_path_is_in_the_users_data_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_path().is_relative_to(tmp_path)
    assert default_path().parts[-2:] == ("bitinfer", "history.db")
