"""Runs the application: a socket, uvicorn, and an end that lets running answers finish."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn

from bitinfer.errors import ConfigError
from bitinfer.history import History
from bitinfer.model import Model
from bitinfer.serve import limits
from bitinfer.serve.app import make_app
from bitinfer.serve.batching import BatchingBackend
from bitinfer.serve.guard import Access
from bitinfer.serve.protocol import Protocol
from bitinfer.serve.service import Service
from bitinfer.session import check_folder

_CUT_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Ends at a signal when all answers are out; at a second one, at once."""

    def __init__(
        self, service: Service, access: Access, sock: socket.socket, ready: Callable[[], None]
    ) -> None:
        """Prepare to serve on ``sock``; ``ready`` is called when it does."""
        super().__init__(
            uvicorn.Config(
                make_app(service, access),
                http=Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=limits.KEEP_ALIVE_S,
                h11_max_incomplete_event_size=limits.MOST_HEADER_BYTES,
            )
        )
        self._service, self._sock, self._ready = service, sock, ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until ``should_exit``."""
        try:
            super().run([self._sock])
        finally:
            self._service.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the answers; cut those that a second signal left."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if tasks := list(self.server_state.tasks):  # they end when their clients are gone
            await asyncio.wait(tasks, timeout=_CUT_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, cut at the second."""
        self.force_exit = self.should_exit
        self.should_exit = self._service.draining = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but an orderly end does not raise the signal once more."""
        try:
            before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        except ValueError:  # not in the main thread
            yield
            return
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: the host is none, or the port is taken or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise ConfigError(f"--host {host} --port {port}: {reason}: choose another") from None


def is_local(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    model: Model,
    sock: socket.socket,
    access: Access,
    *,
    name: str,
    slots: int,
    queue_size: int,
    session: Path | None = None,
    history: History | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve ``model`` until a signal ends it.

    Args:
        model: Stays the caller's.
        sock: From `bind`.
        access: Who may ask.
        name: What clients call the model.
        slots: Most replies that are generated at once.
        queue_size: Most that wait.
        session: File with what the KV cache holds: read now if it is there, written at the end.
        history: Conversations for the chat page; stays the caller's. None: they are not kept.
        ready: Called when requests are taken.

    Raises:
        SessionError: the file is damaged, or another model made it.
        ConfigError: its folder is not there.
        OSError: it cannot be written.
    """
    if session is not None:
        check_folder(session)
    backend = BatchingBackend(model.engine, model.setup, slots=slots, queue_limit=queue_size)
    service = Service(model, backend, name, history)
    try:
        if session is not None and session.exists():
            backend.restore(session)
        Server(service, access, sock, ready).run()
    finally:
        service.close()
    if session is not None:
        backend.save(session)
