"""What comes too much, too slowly or never is cut, and the server goes on."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from served import CHAT, answer, begin_chat, code, unhurt

from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve import limits
from bitinfer.serve.protocol import Protocol
from bitinfer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def served(model):
    with unhurt(model) as server:
        yield server


def test_a_body_that_is_too_large_is_refused_after_it_is_sent(served):
    status, reply = served.ask("POST", CHAT, b" " * (limits.MOST_BODY_BYTES + 1))
    assert (status, code(reply)) == (413, "body_too_large")


@pytest.mark.parametrize("text", ["cat " * 2_000_000, "a" * 8_000_000], ids=["words", "letters"])
def test_a_text_that_cannot_fit_is_not_even_tokenized(served, monkeypatch, text):
    monkeypatch.setattr(Tokenizer, "encode", None)
    monkeypatch.setattr(Tokenizer, "encode_rendered", None)
    chat = {"messages": [{"role": "user", "content": text}]}
    for path, body in (("/v1/completions", {"prompt": text}), (CHAT, chat)):
        status, reply = served.ask("POST", path, body)
        assert (status, code(reply)) == (400, "context_length_exceeded")


def test_a_body_that_says_it_is_huge_is_refused_at_once(served):
    with served.connect() as sock:
        begin_chat(sock, 99999999999)
        status, reply = answer(sock)
    assert (status, code(reply)) == (413, "body_too_large")


def refuse(sock: socket.socket) -> None:
    """Get an answer before the body, of nine bytes, is sent."""
    sock.sendall(f"PUT {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n".encode())
    said = b""
    while not said.endswith(b"}}"):
        said += sock.recv(4096)
    assert b" 405 " in said


def test_who_is_refused_before_the_body_is_sent_hears_it_and_may_go_on(served):
    with served.connect() as sock:
        refuse(sock)
        sock.sendall(b"some body" + b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert answer(sock)[0] == 403


def test_the_rest_of_a_refused_body_is_not_waited_for(served, monkeypatch):
    monkeypatch.setattr(limits, "LINGER_TIME_S", 0.1)
    with served.connect() as sock:
        refuse(sock)
        assert sock.recv(1) == b""


def pour(sock: socket.socket, piece: bytes) -> bytes:
    """Send ``piece`` until the other side has enough; what it says."""
    try:
        while True:
            sock.sendall(piece)
    except OSError:
        pass
    try:
        return sock.recv(65536)
    except OSError:
        return b""


def test_an_endless_body_is_cut(served):
    with served.connect() as sock:
        sock.sendall(
            f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        said = pour(sock, b"100000\r\n" + b" " * 0x100000 + b"\r\n")
    assert said == b"" or b" 413 " in said


def test_endless_headers_are_cut(served):
    with served.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ")
        said = pour(sock, b"a" * 65536)
    assert said == b"" or b" 400 " in said


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\r\n\r\n", b"G E T / HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_refused(served, sent):
    with served.connect() as sock:
        sock.sendall(sent + b"\r\n\r\n")
        status, reply = answer(sock)
    assert (status, code(reply)) == (400, "invalid_http")


def test_headers_that_do_not_come_are_not_waited_for(served, monkeypatch):
    monkeypatch.setattr(limits, "HEADER_TIME_S", 0.1)
    with served.connect() as silent, served.connect() as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nhost:")
        for sock in (silent, slow):
            status, reply = answer(sock)
            assert (status, code(reply)) == (408, "timeout")


def test_a_body_that_does_not_come_is_not_waited_for(served, monkeypatch):
    monkeypatch.setattr(limits, "BODY_TIME_S", 0.1)
    with served.connect() as sock:
        begin_chat(sock, 9, '{"')
        status, reply = answer(sock)
    assert (status, code(reply)) == (408, "timeout")


def test_a_reader_that_stalls_is_cut(served, model, monkeypatch):
    monkeypatch.setattr(limits, "SEND_TIME_S", 0.1)
    closed = threading.Event()
    lost = Protocol.connection_lost
    monkeypatch.setattr(Protocol, "connection_lost", lambda *args: (lost(*args), closed.set()))
    longest = max(range(model.tokenizer.vocab_size), key=lambda i: len(model.tokenizer.decode([i])))
    body = json.dumps({"tokens": [longest] * 50_000}).encode()  # more than the buffers hold
    served.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # of its connections
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", served.port))
        sock.sendall(
            b"POST /detokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert closed.wait(30)
