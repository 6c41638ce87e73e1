"""Answers that come in pieces, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")

DONE = b"data: [DONE]\n\n"


class JsonResponse(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of it."""
        return msgspec.json.encode(content)


class PieceResponse(Response):
    """An answer in pieces, which ends when the client goes away.

    A server that drains lets it come to its end (sse-starlette would cut it off).
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Send ``pieces``, then call ``close``, also if not one was asked for."""
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._pieces = pieces
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def pieces() -> None:
            async with aclosing(self._pieces):
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})

        try:
            await _unless_gone(receive, pieces())
        except ClientDisconnect:
            return
        finally:
            self._close()


def event_stream(pieces: AsyncGenerator[bytes, None], close: Callable[[], None]) -> PieceResponse:
    """Server-sent events."""
    return PieceResponse(pieces, "text/event-stream", close)


def event(value: Any, name: str | None = None) -> bytes:
    """One server-sent event of JSON."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(value) + b"\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What ``work`` returns; it is cancelled when the client goes away.

    Raises:
        ClientDisconnect: it did.
    """
    return await _unless_gone(request.receive, work)


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
