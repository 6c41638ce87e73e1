"""Whoever may not ask, or asks badly, gets a 4xx in OpenAI's shape, and nobody else is hurt."""

from __future__ import annotations

import json
import logging
import time

import openai
import pytest
from served import BODY, CHAT, NAME, QUESTION, code, running, unhurt

from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve import limits
from bitinfer.serve.app import BODIES


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def served(model):
    with unhurt(model) as server:
        yield server


@pytest.fixture(scope="module")
def locked(model):
    origins = ("http://pages.example",)
    with running(model, api_key="secret-key", hosts=("llm.lan",), origins=origins) as server:
        yield server


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "a@[", ""]
)
def test_a_foreign_host_is_refused(served, host):
    status, reply = served.ask("GET", "/v1/models", host=host)
    assert (status, code(reply)) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:80", "[::1]:8080"])
def test_the_machine_s_own_names_are_hosts(served, host):
    assert served.ask("GET", "/v1/models", host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "file://"])
def test_a_foreign_origin_is_refused(served, origin):
    status, reply = served.ask("POST", CHAT, BODY, origin=origin)
    assert (status, code(reply)) == (403, "origin_not_allowed")


def test_the_own_origin_may_ask_and_no_page_gets_a_cors_header(served):
    assert served.ask("POST", CHAT, BODY, origin="http://localhost")[0] == 200
    with served.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.0\r\nhost: localhost\r\norigin: http://localhost\r\n\r\n")
        assert b"access-control" not in sock.makefile("rb").read().lower()


def test_hosts_and_origins_can_be_allowed(locked):
    key = "Bearer secret-key"
    given = {"host": "llm.lan", "origin": "http://pages.example", "authorization": key}
    assert locked.ask("GET", "/v1/models", **given)[0] == 200


PREFLIGHTS = [
    ("pages", "POST", CHAT, 200),
    ("pages", "PATCH", "/history/1", 200),
    ("pages", "DELETE", "/history/1", 200),
    ("pages", "TRACE", "/history/1", 400),
    ("evil", "POST", CHAT, 400),
    ("evil", "DELETE", "/history/1", 400),
]


@pytest.mark.parametrize(("page", "method", "path", "status"), PREFLIGHTS)
def test_only_allowed_pages_are_told_that_they_may_ask(locked, page, method, path, status):
    with locked.connect() as sock:
        sock.sendall(
            f"OPTIONS {path} HTTP/1.0\r\nhost: localhost\r\n"
            f"origin: http://{page}.example\r\n"
            f"access-control-request-method: {method}\r\n"
            "access-control-request-headers: authorization, content-type, x-stainless-os\r\n\r\n"
            "".encode()
        )
        head = sock.makefile("rb").read().decode().lower()
    assert int(head.split()[1]) == status
    allowed = "access-control-allow-origin: http://pages.example" in head
    assert allowed == (page == "pages")


@pytest.mark.parametrize(
    "key", ["", "Bearer", "Bearer wrong", "Bearer secret-key2", "Basic secret-key", "Bearer é"]
)
def test_a_wrong_key_is_refused_everywhere_but_at_probes(locked, key):
    for method, path in (("GET", "/v1/models"), ("POST", CHAT), ("GET", "/metrics"), ("GET", "/x")):
        status, reply = locked.ask(method, path, authorization=key)
        assert (status, code(reply)) == (401, "invalid_api_key")
        assert "secret-key" not in json.dumps(reply)
    assert locked.ask("GET", "/health", authorization=key) == (200, {"status": "ok"})
    assert locked.ask("GET", "/ready")[0] == 200


def test_the_official_client_knows_a_wrong_key_and_uses_a_right_one(locked):
    with locked.client("wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with locked.client("secret-key") as client:
        assert [found.id for found in client.models.list()] == [NAME]
        assert client.models.retrieve(NAME).id == NAME


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "truncated"),
        (b'{"messages": [', "truncated"),
        (b"messages=1", "malformed"),
        (b'{"temperature": NaN, "messages": []}', "malformed"),
        (b'{"model": "\xff"}', "utf-8"),
        (b"[]", "object"),
        (b'{"x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "nested"),
    ],
)
def test_broken_json_is_refused(served, body, part):
    status, reply = served.ask("POST", CHAT, body)
    assert status == 400
    assert part in reply["error"]["message"].lower()


def test_deep_free_json_is_refused(served):
    schema: dict[str, object] = {}
    for _ in range(limits.MOST_DEPTH):
        schema = {"items": schema}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    status, reply = served.ask("POST", CHAT, {**BODY, "response_format": form})
    assert (status, code(reply)) == (400, "too_deep")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(served, kind):
    status, reply = served.ask("POST", CHAT, BODY, content_type=kind)
    assert (status, code(reply)) == (415, "unsupported_media_type")


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("DELETE", "/v1/models")])
def test_another_method_is_refused(served, method, path):
    status, reply = served.ask(method, path)
    assert (status, code(reply)) == (405, "method_not_allowed")


def test_a_refused_method_is_told_all_that_are_taken(served):
    with served.connect() as sock:
        sock.sendall(b"PUT /history/1 HTTP/1.0\r\nhost: localhost\r\n\r\n")
        head = sock.makefile("rb").read().lower()
    assert b"\r\nallow: delete, get, head, patch\r\n" in head


@pytest.mark.parametrize("path", ["/v2", "/v1/../../etc/passwd", "/static/..%2f..%2fetc/passwd"])
def test_another_path_is_not_found(served, path):
    status, reply = served.ask("GET", path)
    assert (status, code(reply)) == (404, "not_found")


def test_a_client_that_goes_away_frees_its_place(served):
    counts = served.service.backend.counts
    long = {**BODY, "max_tokens": 900, "logit_bias": {"2": -100}}
    for stream in (True, False):
        with served.connect() as sock:
            body = json.dumps({**long, "stream": stream}).encode()
            sock.sendall(
                f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            if stream:
                sock.recv(1)
    status, reply = served.ask("POST", CHAT, BODY)  # waits its turn
    assert (status, reply["usage"]["completion_tokens"]) == (200, 4)
    end = time.monotonic() + 20
    while counts().waiting and time.monotonic() < end:  # the last may go after this reply
        time.sleep(0.01)
    assert counts().waiting == 0


def test_a_full_queue_says_when_to_come_again(model):
    with running(model, slots=1, queue_limit=1) as server, server.client() as client:
        status = [server.ask("POST", CHAT, {**BODY, "n": 9})[0]]
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=NAME, messages=QUESTION, n=9)
        assert status == [429]
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) > 0
        assert server.ask("POST", CHAT, BODY)[0] == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("why", ["draining", "dead"])
def test_a_server_that_makes_no_replies_is_not_ready(model, why):
    def broken():
        raise ZeroDivisionError("a bug of the scheduler")

    with running(model, slots=1) as server, server.client() as client:
        assert server.ask("GET", "/ready") == (200, {"status": "ready"})
        if why == "draining":
            server.service.draining = True
        else:
            server.service.backend._scheduler.plan = broken
            assert server.ask("POST", CHAT, BODY)[0] == 500
        for ask in (
            lambda: client.get("/../ready", cast_to=object),
            lambda: client.chat.completions.create(model=NAME, messages=QUESTION),
        ):
            with pytest.raises(openai.InternalServerError) as caught:
                ask()
            assert (caught.value.status_code, caught.value.code) == (503, why)
            assert int(caught.value.response.headers["retry-after"]) > 0
        assert server.ask("GET", "/health")[0] == 200


def test_what_a_client_writes_adds_no_line_to_the_log(served, caplog):
    with caplog.at_level(logging.INFO, "bitinfer.serve"):
        served.ask("GET", "/a%0d%0aforged%1b[31m")
        served.ask("POST", CHAT, {**BODY, "model": "x\r\nforged"})
        served.ask("GET", "/health")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 2
    assert all(line.isprintable() for line in lines)


def test_metrics_count(served):
    def value(name: str) -> float:
        text = served.ask("GET", "/metrics")[1]
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])

    before = (
        value("bitinfer_completion_tokens_total"),
        value("bitinfer_time_to_first_token_seconds_count"),
    )
    served.ask("POST", CHAT, BODY)
    assert value("bitinfer_completion_tokens_total") == before[0] + 4
    assert value("bitinfer_time_to_first_token_seconds_count") == before[1] + 1
    assert value("bitinfer_slots") >= 1


def test_tokens_and_back(served, model):
    text = "The sky. </s> ñ"
    status, reply = served.ask("POST", "/tokenize", {"content": text})
    assert (status, reply["tokens"]) == (200, model.tokenizer.encode(text))
    assert served.ask("POST", "/detokenize", reply) == (200, {"content": text})
    status, reply = served.ask("POST", "/detokenize", {"tokens": [1 << 30]})
    assert (status, code(reply)) == (400, "invalid_value")


VALID = {
    CHAT: {"messages": QUESTION, "max_tokens": 2},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
    "/v1/embeddings": {"input": "Hi"},
    "/api/chat": {"model": NAME, "messages": QUESTION, "options": {"num_predict": 2}},
    "/api/generate": {"model": NAME, "prompt": "Hi", "options": {"num_predict": 2}},
    "/api/show": {"model": NAME},
    "/tokenize": {"content": "Hi"},
    "/detokenize": {"tokens": [300]},
}
JUNK = [None, -1, 1e308, 2**64, "\r\n\0", [[]], {"a": {}}]


@pytest.mark.filterwarnings("ignore:.*not trained")
@pytest.mark.parametrize("path", BODIES)
def test_no_junk_in_any_field_breaks_a_route(served, path):
    """Each answer is one that was meant: never a 5xx, nor an error in another shape."""
    for field in BODIES[path].__struct_fields__:
        for junk in JUNK:
            status, reply = served.ask("POST", path, {**VALID[path], field: junk})
            assert status in (200, 400, 404), (field, junk, reply)
            if status != 200:
                assert reply["error"], (field, junk)
