"""/history: what the page writes is what the command line finds, and the other way round."""

from __future__ import annotations

import json

import pytest
from conversations import said, talk
from served import NAME, answer, running

from bitinfer.history import History
from bitinfer.model import Model
from bitinfer.runtime import default_model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("history") / "history.db"


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def served(model, path):
    with History.open(path) as history, running(model, history=history) as server:
        yield server


@pytest.fixture
def cli(path):
    """The same file, as another process has it."""
    with History.open(path) as history:
        yield history


def begin(served, text, **more):
    body = {"message": {"role": "user", "content": text}, **more}
    status, made = served.ask("POST", "/history", body)
    assert status == 201
    return made


def test_a_conversation_of_the_page_is_one_of_the_command_line(served, cli):
    made = begin(served, "Why is the sky blue?", system="Be brief", settings={"temperature": 0.5})
    number, question = made["id"], made["messages"][0]["id"]
    assert (made["title"], made["model"]) == ("Why is the sky blue?", NAME)
    reply = {"role": "assistant", "content": "Be", "parent_id": question}
    status, message = served.ask("POST", f"/history/{number}/messages", reply)
    assert (status, message["parent_id"], message["finish_reason"]) == (201, question, None)
    change = f"/history/messages/{message['id']}"
    assert served.ask("PATCH", change, {"piece": "cause"})[0] == 200
    assert served.ask("PATCH", change, {"piece": ".", "finish_reason": "stop"})[0] == 200
    assert served.ask("PATCH", change, {"piece": "!"})[0] == 400  # it has ended
    assert said(cli, number) == ["Why is the sky blue?", "Because."]
    kept = cli.conversation(number)
    assert (kept.system, kept.settings) == ("Be brief", {"temperature": 0.5})
    assert cli.messages(number)[-1].finish_reason == "stop"


def test_what_the_command_line_keeps_is_listed_found_and_exported(served, cli):
    number = talk(cli, "About sourdough", "Flour and water")
    listed = served.ask("GET", "/history")[1]["data"]
    assert (listed[0]["id"], listed[0]["num_messages"]) == (number, 2)
    found = served.ask("GET", "/history?search=FLOUR")[1]["data"]
    assert [(entry["id"], entry["excerpt"]) for entry in found] == [(number, "Flour and water")]
    assert served.ask("PATCH", f"/history/{number}", {"title": "Bread"})[1]["title"] == "Bread"
    assert [entry["id"] for entry in served.ask("GET", "/history?search=bread")[1]["data"]] == [
        number
    ]
    assert "data" in served.ask("GET", "/history?search=%22%27%29%3B--")[1]  # words, never syntax
    shown = served.ask("GET", f"/history/{number}")[1]
    assert [message["content"] for message in shown["messages"]] == [
        "About sourdough",
        "Flour and water",
    ]
    assert served.ask("GET", f"/history/{number}/export")[1] == cli.export(number, "markdown")
    as_json = served.ask("GET", f"/history/{number}/export?format=json")[1]
    assert as_json == json.loads(cli.export(number, "json"))


def test_branches_stay_and_one_of_them_is_taken(served, cli):
    made = begin(served, "One")
    number, first = made["id"], made["messages"][0]["id"]
    other = {"role": "user", "content": "Two", "finish_reason": None}
    second = served.ask("POST", f"/history/{number}/messages", other)[1]["id"]
    assert said(cli, number) == ["Two"]
    assert served.ask("PATCH", f"/history/{number}", {"leaf_id": first})[1]["leaf_id"] == first
    assert said(cli, number) == ["One"]
    assert [m.id for m in cli.all_messages(number)] == [first, second]
    kept = {"system": "Rhyme"}  # and the settings stay
    assert served.ask("PATCH", f"/history/{number}", kept)[1]["settings"] == {}
    assert cli.conversation(number).system == "Rhyme"


def test_what_is_deleted_is_gone(served, cli):
    number = begin(served, "Secret plans")["id"]
    assert served.ask("DELETE", f"/history/{number}") == (200, {"id": number, "deleted": True})
    assert cli.search("secret") == ()
    assert served.ask("GET", f"/history/{number}")[0] == 404


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("GET", "/history/99999", None, 404),
        ("GET", "/history/99999999999999999999999", None, 404),
        ("GET", "/history/none", None, 404),
        ("PUT", "/history/1", {}, 405),
        ("DELETE", "/history/99999", None, 404),
        ("GET", "/history/99999/export", None, 404),
        ("GET", "/history/1/export?format=../../etc/passwd", None, 400),
        ("PATCH", "/history/99999", {"title": "x"}, 404),
        ("PATCH", "/history/1", {"title": ""}, 400),
        ("PATCH", "/history/1", {"leaf_id": 99999}, 404),
        ("PATCH", "/history/messages/99999", {"piece": "x"}, 404),
        ("POST", "/history", {}, 400),
        ("POST", "/history", {"message": {"role": "system", "content": "x"}}, 400),
        ("POST", "/history/1/messages", {"role": "user", "content": "x", "parent_id": -1}, 400),
        ("POST", "/history/1/messages", {"role": "user", "content": "x", "parent_id": 9**9}, 404),
        ("POST", "/history/99999/messages", {"role": "user", "content": "x"}, 404),
    ],
)
def test_bad_requests_are_named(served, cli, method, route, body, status):
    if not cli.list():
        begin(served, "There is one")
    got, reply = served.ask(method, route, body)
    assert got == status
    assert set(reply["error"]) == {"message", "type", "param", "code"}


def next_event(file):
    """Name of the next server-sent event."""
    for line in file:
        if line.startswith(b"event: "):
            return line.split()[1]
    return None


def test_each_write_of_anybody_is_told_and_the_end_of_the_server_ends_it(model, tmp_path):
    file = tmp_path / "h.db"
    with (
        History.open(file) as kept,
        History.open(file) as other,
        running(model, history=kept) as server,
        server.connect() as sock,
        sock.makefile("rb") as stream,
    ):
        sock.sendall(
            b"GET /history/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        assert next_event(stream) == b"open"
        number = talk(other, "From the command line")
        assert next_event(stream) == b"changed"
        server.ask("PATCH", f"/history/{number}", {"title": "From the page"})
        assert next_event(stream) == b"changed"
        server.service.draining = True
        assert next_event(stream) is None


def test_without_a_history_the_chat_goes_on(model):
    with running(model) as server:
        status, reply = server.ask("GET", "/history")
        assert (status, reply["error"]["code"]) == (404, "no_history")
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        assert server.ask("POST", "/v1/chat/completions", body)[0] == 200


def test_a_history_that_fails_is_told_in_words(model, tmp_path):
    history = History.open(tmp_path / "h.db")
    with running(model, history=history) as server:
        history.close()
        status, reply = server.ask("GET", "/history")
        assert (status, reply["error"]["code"]) == (503, "history_failed")
        assert server.ask("GET", "/ready")[0] == 200


def test_it_asks_for_the_key(model, tmp_path):
    with (
        History.open(tmp_path / "h.db") as history,
        running(model, history=history, api_key="k") as server,
    ):
        for path in ("/history", "/history/events", "/history/1", "/history/1/export"):
            assert server.ask("GET", path)[0] == 401
        assert server.ask("GET", "/history", authorization="Bearer k") == (200, {"data": []})
        with server.connect() as sock:
            sock.sendall(b"GET /history/events HTTP/1.0\r\nhost: localhost\r\n\r\n")
            assert answer(sock)[0] == 401
