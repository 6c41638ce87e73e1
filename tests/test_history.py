"""Conversations in SQLite: what is kept, found and private, and what damage does."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bitinfer.errors import HistoryError
from bitinfer.history import History, conversations, default_path, schema

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def history(path):
    with History.open(path) as opened:
        yield opened


def talk(history: History, *texts: str, system: str | None = None) -> int:
    """A conversation of questions and answers in turn."""
    number = history.new_conversation(model="tales-6m", system=system, settings={"seed": 3})
    parent = None
    for n, text in enumerate(texts):
        role = "assistant" if n % 2 else "user"
        parent = history.add_message(number, role, text, parent)
    return number


def said(history: History, number: int) -> list[str]:
    return [message.content for message in history.messages(number)]


def test_a_conversation_comes_back_as_it_was(path) -> None:
    with History.open(path) as history:
        number = talk(history, "What is 2 + 2?\nTell me.", "Four \0 \U0001f600", system="Be brief")
    with History.open(path) as history:
        found = history.conversation(number)
        assert (found.model, found.system, found.settings) == ("tales-6m", "Be brief", {"seed": 3})
        assert (found.title, found.num_messages) == ("What is 2 + 2? Tell me.", 2)
        assert said(history, number) == ["What is 2 + 2?\nTell me.", "Four \0 \U0001f600"]
        assert [m.role for m in history.messages(number)] == ["user", "assistant"]


def test_text_that_is_not_unicode_is_kept_with_question_marks(history) -> None:
    number = talk(history, "caf\udce9")
    assert said(history, number) == ["caf?"]
    assert history.search("caf\udce9")[0].conversation_id == number


def test_another_branch_keeps_the_old_one(history) -> None:
    number = talk(history, "Hi", "Hello", "How are you?", "Well")
    hello = history.messages(number)[1]
    history.add_message(number, "user", "Who are you?", hello.id)
    assert said(history, number) == ["Hi", "Hello", "Who are you?"]
    history.add_message(number, "user", "Good day", None)
    assert said(history, number) == ["Good day"]
    assert len(history.all_messages(number)) == 6
    history.set_leaf(number, hello.id)
    assert said(history, number) == ["Hi", "Hello"]
    history.set_leaf(number, None)
    assert said(history, number) == []


def test_a_message_of_another_conversation_is_no_parent(history) -> None:
    first, second = talk(history, "a"), talk(history, "b")
    foreign = history.messages(first)[0].id
    with pytest.raises(HistoryError, match=f"message of conversation {second}, got {foreign}"):
        history.add_message(second, "user", "c", foreign)
    with pytest.raises(HistoryError, match="got 77"):
        history.set_leaf(first, 77)
    with pytest.raises(HistoryError, match="number of a conversation, got 99"):
        history.add_message(99, "user", "c")
    assert said(history, second) == ["b"]


def test_list_has_the_latest_first(history) -> None:
    assert history.latest() is None
    first, second = talk(history, "a"), talk(history, "b")
    assert [c.id for c in history.list()] == [second, first]
    history.add_message(first, "user", "again", history.messages(first)[-1].id)
    assert history.latest().id == first
    assert [c.id for c in history.list(limit=1)] == [first]


def test_pieces_are_saved_together_and_the_rest_at_the_end(history, path, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(conversations.time, "monotonic", lambda: now[0])
    number = talk(history, "Hi")
    reply = history.add_message(number, "assistant", "", history.messages(number)[0].id)
    other = sqlite3.connect(path)

    def stored() -> tuple[str, str | None]:
        query = "SELECT content, finish_reason FROM message WHERE id = ?"
        return other.execute(query, (reply,)).fetchone()

    for now[0], piece, saved in (
        (0.2, "one ", ""),
        (0.5, "two ", "one two "),
        (0.9, "three ", "one two "),
    ):
        history.append(reply, piece)
        assert stored() == (saved, None)
    history.finish(reply, "stop")
    assert stored() == ("one two three ", "stop")
    assert [hit.message_id for hit in history.search("three")] == [reply]
    other.close()


def test_closing_saves_what_waits(path) -> None:
    with History.open(path) as history:
        number = talk(history, "Hi")
        reply = history.add_message(number, "assistant", "", history.messages(number)[0].id)
        history.append(reply, "not yet")
    with History.open(path) as history:
        assert said(history, number) == ["Hi", "not yet"]


KILLED = """
import os, sys
from pathlib import Path
from bitinfer.history import History, conversations
conversations.SAVE_EVERY_S = 0.0
history = History.open(Path(sys.argv[1]))
number = history.new_conversation(model="m")
question = history.add_message(number, "user", "Count")
reply = history.add_message(number, "assistant", "", question)
n = 0
while True:
    history.append(reply, f"{n} ")
    print(n, flush=True)
    n += 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kill_loses_at_most_the_piece_not_yet_saved(path) -> None:
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        saved = [process.stdout.readline() for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        saved += process.stdout.readlines()
    last = int([line for line in saved if line.endswith("\n")][-1])
    with History.open(path) as history:  # a warning of damage would fail the test
        (question, reply) = history.messages(1)
        assert (question.content, reply.finish_reason) == ("Count", None)
        numbers = [int(n) for n in reply.content.split()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) in (last + 1, last + 2)  # the kill may come between saving and printing
        assert history.search("count")


def test_two_processes_write_at_once(path) -> None:
    script = """
import sys
from pathlib import Path
from bitinfer.history import History
with History.open(Path(sys.argv[1])) as history:
    for n in range(20):
        number = history.new_conversation(model=sys.argv[2])
        history.add_message(number, "user", f"{sys.argv[2]} {n}")
"""
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name], env=ENVIRONMENT)
        for name in ("left", "right")
    ]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    with History.open(path) as history:
        assert sorted(c.title for c in history.list()) == sorted(
            f"{name} {n}" for name in ("left", "right") for n in range(20)
        )


def test_threads_share_a_history(history) -> None:
    threads = [threading.Thread(target=talk, args=(history, str(n), "ok")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {said(history, c.id)[0] for c in history.list()} == {str(n) for n in range(8)}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("dog", True),  # the beginning of "dogs"
        ("DOGS crème", True),
        ("creme brulee", True),
        ("dog cat", False),
        ("luetoot", True),  # inside a word
        ("世界", True),
        ("C++", True),
        ('dog" OR cat', False),  # none of these is syntax
        ("dogs AND cat", False),
        ("content:dogs", False),
        ("NEAR(dogs)", False),
        ("dogs*", True),
        ("^dogs", True),
        ('"', False),
        ("(", True),
        ("%", False),
        ("_", False),
        ("\0", False),
        ("  ", False),
    ],
)
def test_search_finds_words_and_knows_no_syntax(history, query, found) -> None:
    talk(history, "Two dogs ate crème brûlée (bluetooth, C++, 你好世界)")
    talk(history, "nothing")
    assert len(history.search(query)) == found


def test_search_tells_where_and_shows_the_words_around(history) -> None:
    number = talk(history, "The question", "word " * 100 + "needle " + "word " * 100)
    (hit,) = history.search("NEEDLE")
    assert (hit.conversation_id, hit.title, hit.role) == (number, "The question", "assistant")
    assert "needle" in hit.excerpt
    assert hit.excerpt.startswith("…word")
    assert len(hit.excerpt) < 170


def test_deleted_text_is_in_no_file_any_more(history, path) -> None:
    secret = "xylophonewhisper"
    kept = talk(history, "The kept one")
    number = talk(history, f"My {secret} is long. " * 500, f"No {secret}")
    assert any(secret.encode() in file.read_bytes() for file in path.parent.iterdir())
    history.delete(number)
    assert not any(secret.encode() in file.read_bytes() for file in path.parent.iterdir())
    assert history.search(secret) == ()
    assert said(history, kept) == ["The kept one"]
    with pytest.raises(HistoryError, match=str(number)):
        history.delete(number)
    assert talk(history, "new") > number  # a number is never used again


def test_index_and_foreign_keys_stay_whole(history, path) -> None:
    first, second = talk(history, "a", "b"), talk(history, "c", "d")
    history.add_message(first, "user", "e", history.messages(first)[0].id)
    history.delete(second)
    other = sqlite3.connect(path)
    other.execute("INSERT INTO message_words(message_words, rank) VALUES ('integrity-check', 1)")
    assert other.execute("PRAGMA foreign_key_check").fetchall() == []
    assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert other.execute("SELECT count(*) FROM message").fetchone() == (3,)
    other.close()


def test_rename(history) -> None:
    number = talk(history, "a")
    history.rename(number, "Better")
    history.add_message(number, "user", "more")
    assert history.conversation(number).title == "Better"


def test_export_as_json_has_every_branch(history) -> None:
    number = talk(history, "Hi", "Hallö")
    history.add_message(number, "user", "Other")
    facts = json.loads(history.export(number, "json"))
    assert (facts["id"], facts["model"], facts["settings"]) == (number, "tales-6m", {"seed": 3})
    assert [m["content"] for m in facts["messages"]] == ["Hi", "Hallö", "Other"]
    assert facts["leaf_id"] == facts["messages"][-1]["id"]
    assert facts["messages"][1]["parent_id"] == facts["messages"][0]["id"]


def test_export_is_strict_json(history) -> None:
    history.new_conversation(model="m", settings={"logit_bias": {15: float("-inf")}})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads(history.export(1, "json"), parse_constant=refuse)
    assert facts["settings"] == {"logit_bias": {"15": "-Infinity"}}


def test_export_as_markdown_reads_well(history) -> None:
    number = talk(history, "Hi", "Hello\n", system="Be brief")
    day = history.conversation(number).created[:10]
    assert history.export(number, "markdown") == (
        f"# Hi\n\ntales-6m, {day}\n\n## System\n\nBe brief\n\n## User\n\nHi\n\n"
        "## Assistant\n\nHello\n"
    )


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
