"""``Protocol``: uvicorn's HTTP/1.1 by h11, with limits of time and size, errors in our shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from bitinfer.serve import limits
from bitinfer.serve.problems import ApiError


class Protocol(H11Protocol):
    """A connection: its headers must come in time, and its reader must read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; it has a while to say what it wants."""
        self._asking, self._reading = _Deadline(self.loop), _Deadline(self.loop)
        self._lingering = _Deadline(self.loop)
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        for deadline in (self._asking, self._reading, self._lingering):
            deadline.stop()

    def data_received(self, data: bytes) -> None:
        """Bytes came; the first of a further request start its time."""
        if not self._asking.running and self.conn.their_state is h11.IDLE:
            self._expect_headers()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._asking.stop()
        if self.conn.their_state is not h11.SEND_BODY:
            self._lingering.stop()

    def pause_writing(self) -> None:
        """The client does not read; it has a while to go on."""
        super().pause_writing()
        self._reading.start(limits.SEND_TIME_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._reading.stop()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """The answer is out; what still comes of the body is thrown away, for a while.

        To close at once could take the answer away from a client that is still sending.
        """
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._lingering.start(limits.LINGER_TIME_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has too large headers."""
        self._refuse(ApiError(400, msg.lower().rstrip("."), "invalid_http"))

    def _expect_headers(self) -> None:
        self._asking.start(limits.HEADER_TIME_S, self._headers_late)

    def _headers_late(self) -> None:
        self._asking.stop()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            late = f"headers: not there within {limits.HEADER_TIME_S:g} s"
            self._refuse(ApiError(408, late, "timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Answer, if that is still possible, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(error.body)
            headers: list[Any] = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                if (output := self.conn.send(event)) is not None:
                    self.transport.write(output)
        self.transport.close()


class _Deadline:
    """Calls a function when its time is over, unless it was stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._timer is not None

    def start(self, seconds: float, late: Callable[[], None]) -> None:
        """Begin, anew if it runs."""
        self.stop()
        self._timer = self._loop.call_later(seconds, late)

    def stop(self) -> None:
        """The time was kept."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
