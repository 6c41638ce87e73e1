"""A server in a process of its own, and a client that sees each piece of an answer as it comes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KIB = 1024


@dataclass(frozen=True)
class Process:
    """A program that serves at a port of 127.0.0.1."""

    pid: int
    port: int

    @property
    def rss_bytes(self) -> int:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s*(\d+) kB", status)
        return int(found[1]) * _KIB if found else 0

    @property
    def open_files(self) -> int:
        """Its file descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@contextmanager
def bitinfer_server(model: str, *options: str) -> Iterator[Process]:
    """``bitinfer serve MODEL`` at a free port, until the end of the block."""
    command = [sys.executable, "-m", "bitinfer", "serve", model, "--port", "0", "--no-access-log"]
    elsewhere = tempfile.gettempdir()  # the package without its compiled part lies in a checkout
    with subprocess.Popen(
        [*command, *options], cwd=elsewhere, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", told)
            if found is None:
                raise SystemExit(f"bitinfer serve: expected its address, got {told!r}")
            yield Process(process.pid, int(found[1]))
        finally:
            process.kill()


@contextmanager
def other_server(command: Sequence[str]) -> Iterator[Process]:
    """A program that takes ``--port`` and tells at /health when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]}: ended with code {process.returncode}")
                time.sleep(0.1)
            yield Process(process.pid, port)
        finally:
            process.kill()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def request_bytes(method: str, path: str, body: Any = None) -> bytes:
    """A request whose connection ends with its answer."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    if body is not None:
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


@dataclass(frozen=True)
class Answer:
    """The beginning of an answer; the rest is in its pieces."""

    status: int
    headers: dict[str, str]
    _reader: asyncio.StreamReader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it comes."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readline(), 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
        else:
            yield await self._reader.readexactly(int(self.headers["content-length"]))

    async def json(self) -> Any:
        """The body of an answer that is JSON."""
        return json.loads(b"".join([piece async for piece in self.pieces()]))

    async def events(self) -> AsyncIterator[Any]:
        """The JSON of each server-sent event, up to ``[DONE]``.

        Raises:
            EOFError: the answer ended before.
        """
        kept = b""
        async for piece in self.pieces():
            *events, kept = (kept + piece).split(b"\n\n")
            for event in events:
                data = event.partition(b"data: ")[2]
                if data.strip() == b"[DONE]":
                    return
                if data:
                    yield json.loads(data)
        raise EOFError("a stream without [DONE]")


@asynccontextmanager
async def asked(port: int, method: str, path: str, body: Any = None) -> AsyncIterator[Answer]:
    """Ask; the connection is closed at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_bytes(method, path, body))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.splitlines()[1:-1]]
        headers = {name.lower(): value for name, _, value in lines}
        yield Answer(int(head.split()[1]), headers, reader)
    finally:
        writer.transport.abort()


async def metric(port: int, name: str) -> float:
    """A figure of bitinfer's /metrics."""
    async with asked(port, "GET", "/metrics") as answer:
        text = b"".join([piece async for piece in answer.pieces()]).decode()
    found = re.search(rf"^bitinfer_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"/metrics: expected bitinfer_{name}")
    return float(found[1])
