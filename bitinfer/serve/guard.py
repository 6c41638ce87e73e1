"""``Guard``: who may ask. It stands before all routes, and writes the log and the errors.

A web page in the user's browser is the likeliest attacker of a local server: by DNS rebinding (its
own name leads to 127.0.0.1; the Host header tells) or by a plain request (the Origin header tells).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitinfer.json_file import shown
from bitinfer.serve.events import JsonResponse
from bitinfer.serve.metrics import Metrics
from bitinfer.serve.problems import ApiError

_LOG = logging.getLogger("bitinfer.serve")
OPEN_PATHS = ("/", "/health", "/ready")  # and below /static/: no key needed


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        api_key: What clients must send; None: nothing.
        hosts: Names by which the server may be called, besides localhost and IP addresses.
        origins: Web origins (scheme://host:port) whose pages may ask, besides the server's own.
    """

    api_key: str | None = None
    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def check(self, path: str, headers: Headers) -> None:
        """Refuse who may not ask.

        Raises:
            ApiError: wrong host, origin or key.
        """
        host = headers.get("host", "")
        if not self._knows_host(host):
            raise ApiError(
                403,
                f"host: expected localhost, an IP address or what --allow-host names, got {host}",
                "host_not_allowed",
            )
        origin = headers.get("origin")
        own = f"http://{host}", f"https://{host}"
        if origin is not None and origin not in (*own, *self.origins):
            raise ApiError(
                403,
                f"origin: expected the server's own or what --allow-origin names, got {origin}",
                "origin_not_allowed",
            )
        if self.api_key is not None and path not in OPEN_PATHS and not path.startswith("/static/"):
            kind, _, key = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not _same(key.strip(), self.api_key):
                raise ApiError(
                    401,
                    "authorization: expected 'Bearer KEY' with the key of this server",
                    "invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )

    def _knows_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name == "localhost" or name in self.hosts:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # rebinding needs a name


def _same(given: str, expected: str) -> bool:
    """Whether they are equal; the time tells nothing of either."""
    one, other = (hashlib.sha256(text.encode("utf-8", "replace")) for text in (given, expected))
    return hmac.compare_digest(one.digest(), other.digest())


class Guard:
    """ASGI middleware; every answer passes through it."""

    def __init__(
        self, app: ASGIApp, access: Access, metrics: Metrics, paths: Collection[str]
    ) -> None:
        """Guard ``app``; ``paths`` are those that metrics tell apart."""
        self._app, self._access, self._metrics, self._paths = app, access, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status, complete = 0, False
        request_id = secrets.token_hex(8)

        async def send_marked(message: Message) -> None:
            nonlocal status, complete
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.setdefault("x-content-type-options", "nosniff")
            await send(message)

        try:
            self._access.check(scope["path"], Headers(scope=scope))
            await self._app(scope, receive, send_marked)
        except ApiError as error:
            await _answer(scope, error)(scope, receive, send_marked)
        except Exception:
            if not complete:  # else it was logged, and the client was told
                raise
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            _LOG.info(
                "%s %s %s %d %.0f ms %s",
                shown((scope.get("client") or ("-",))[0]),
                shown(scope["method"], 16),
                shown(scope["path"], 200),
                status,
                (time.perf_counter() - started_s) * 1e3,
                request_id,
            )


def _answer(scope: Scope, error: ApiError) -> JsonResponse:
    """The error as the API of its path has it: Ollama's has a text only."""
    body = {"error": str(error)} if scope["path"].startswith("/api/") else error.body
    return JsonResponse(body, error.status, error.headers)


def error_response(request: Request, error: ApiError) -> JsonResponse:
    """An error that a route found."""
    return _answer(request.scope, error)
