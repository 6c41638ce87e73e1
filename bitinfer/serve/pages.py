"""The chat page: a fixed list of files of the package, with headers that let nothing else run."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from bitinfer.serve.problems import ApiError

_FOLDER = Path(__file__).parent / "static"
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
FILES = {
    "index.html": "text/html; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "style.css": _STYLE,
    "turns.css": _STYLE,
    **dict.fromkeys(("theme.js", "app.js", "api.js", "chat.js", "conversations.js"), _SCRIPT),
    **dict.fromkeys(("dialogs.js", "dom.js", "inline.js", "markdown.js", "settings.js"), _SCRIPT),
    **dict.fromkeys(("thread.js", "turns.js"), _SCRIPT),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


async def page(request: Request) -> Response:
    """GET /: the chat page."""
    return _file(request, "index.html")


async def static(request: Request) -> Response:
    """GET /static/{name}: what belongs to the page."""
    name = request.path_params["name"]
    if name not in FILES:
        raise ApiError(404, f"path: the page has no file {name}", "not_found")
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    content, etag = _content(name)
    headers = {**_HEADERS, "etag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "content-type": FILES[name]})


@cache
def _content(name: str) -> tuple[bytes, str]:
    """The bytes of a file and its tag."""
    content = (_FOLDER / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
