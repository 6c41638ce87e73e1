"""A running server for tests, and plain sockets to it."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from bitinfer.history import History
from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve.backend import Backend
from bitinfer.serve.batching import BatchingBackend
from bitinfer.serve.guard import Access
from bitinfer.serve.server import Server, bind
from bitinfer.serve.service import Service

NAME = "tales-14m"
QUESTION = [{"role": "user", "content": "What color is the sky?"}]
CHAT = "/v1/chat/completions"
BODY = {"model": NAME, "messages": QUESTION, "max_tokens": 4, "temperature": 0}

# With tools and thinking, in the manner of Qwen.
TEMPLATE = (
    "{{ bos_token }}{% for t in tools or [] %}Tool {{ t.function.name }} <tool_call>{% endfor %}"
    "{% for m in messages %}<|{{ m.role if m.role != 'tool' else 'user' }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.city }})"
    "{% endfor %}{% endfor %}<|assistant|>{% if enable_thinking %}<think>\n{% endif %}"
)


class Running:
    """A server in a thread."""

    def __init__(self, service: Service, server: Server, listener: socket.socket) -> None:
        self.service, self.server, self.listener = service, server, listener
        self.port = listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON (or text) of one request by a plain socket."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        named = {"host": "localhost", "connection": "close"}
        if body is not None:
            named |= {"content-type": "application/json", "content-length": str(len(body))}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        with self.connect() as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
            return answer(sock)


def answer(sock: socket.socket) -> tuple[int, Any]:
    """Status and body of what a server says before it closes."""
    with sock.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(body) if b"application/json" in head else body.decode()


@contextmanager
def running(
    model: Model,
    *,
    slots: int = 4,
    queue_limit: int = 64,
    history: History | None = None,
    backend: Backend | None = None,
    **access: Any,
) -> Iterator[Running]:
    """Serve ``model`` on a free port."""
    ready = threading.Event()
    if backend is None:
        backend = BatchingBackend(model.engine, model.setup, slots=slots, queue_limit=queue_limit)
    service = Service(model, backend, NAME, history)
    with bind("127.0.0.1", 0) as sock:
        server = Server(service, Access(**access), sock, ready.set)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            assert ready.wait(30)
            yield Running(service, server, sock)
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


@contextmanager
def unhurt(model: Model) -> Iterator[Running]:
    """A running server, which still answers after all that was done to it."""
    with running(model) as server:
        yield server
        status, reply = server.ask("POST", CHAT, BODY)
        assert (status, reply["choices"][0]["message"]["content"]) == (200, "The sky is blue")


def begin_chat(sock: socket.socket, length: int, begun: str = "") -> None:
    """Send the head of a chat request, whose body is said to be ``length`` bytes, and its begin."""
    sock.sendall(
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n{begun}".encode()
    )


def model_with_template(folder: Path, template: str = TEMPLATE) -> Path:
    """The embedded model with another chat template."""
    shutil.copytree(default_model(), folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def code(reply) -> str:
    """The code of an error, which has OpenAI's shape."""
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    return reply["error"]["code"]
