"""Conversations in SQLite: what is kept, found, forgotten and exported."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conversations import ENVIRONMENT, said, talk

from bitinfer.errors import HistoryError
from bitinfer.history import History, conversations


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def history(path):
    with History.open(path) as opened:
        yield opened


def test_a_conversation_comes_back_as_it_was(path) -> None:
    with History.open(path) as history:
        number = talk(history, "What is 2 + 2?\nTell me.", "Four \0 \U0001f600", system="Be brief")
    with History.open(path) as history:
        found = history.conversation(number)
        assert (found.model, found.system, found.settings) == ("tales-14m", "Be brief", {"seed": 3})
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


def test_a_new_file_is_opened_as_soon_as_nobody_writes_it(path) -> None:
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # as while another process turns it to WAL
    release = threading.Timer(0.5, lambda: (other.execute("ROLLBACK"), other.close()))
    release.start()
    with History.open(path) as history:
        assert history.list() == ()
    release.join()


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
    assert (facts["id"], facts["model"], facts["settings"]) == (number, "tales-14m", {"seed": 3})
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
        f"# Hi\n\ntales-14m, {day}\n\n## System\n\nBe brief\n\n## User\n\nHi\n\n"
        "## Assistant\n\nHello\n"
    )
