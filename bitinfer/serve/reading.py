"""Requests: a body within its limits of size, time and depth, as the type a route expects."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from bitinfer.serve import limits
from bitinfer.serve.problems import ApiError

Body = TypeVar("Body")
_CLOSE = {"connection": "close"}  # after it: the rest of the body is not waited for


async def read(request: Request, kind: type[Body]) -> Body:
    """The body of a request, which must be JSON of ``kind``.

    Raises:
        ApiError: it is not, or exceeds a limit; says where.
        ClientDisconnect: the client went away.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(
            415,
            f"content-type: expected application/json, got {content_type or 'none'}",
            "unsupported_media_type",
        )
    try:
        body = await asyncio.wait_for(_bytes(request), limits.BODY_TIME_S)
    except asyncio.TimeoutError:
        late = f"body: not there within {limits.BODY_TIME_S:g} s"
        raise ApiError(408, late, "timeout", headers=_CLOSE) from None
    return decode(body, kind)


def decode(body: bytes, kind: type[Body]) -> Body:
    """JSON as ``kind``.

    Raises:
        ApiError: it is not; says where.
    """
    try:
        value = msgspec.json.decode(body, type=kind)
        check_depth(value)
    except msgspec.ValidationError as cause:
        message, param = _placed(str(cause))
        raise ApiError(400, message, "invalid_value", param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise ApiError(400, f"body: expected JSON: {cause}", "invalid_json") from None
    except RecursionError:
        raise _too_deep() from None
    return value


async def _bytes(request: Request) -> bytes:
    """The whole body; one that is too large is read on for a while, so that the answer is heard."""
    told = request.headers.get("content-length", "0")
    expected = int(told) if told.isdecimal() else 0  # h11 has checked it
    if expected > limits.LINGER_BYTES:
        raise _too_large(expected)
    chunks: list[bytes] = []
    length = 0
    end_s = float("inf")
    clock = asyncio.get_running_loop().time
    async for chunk in request.stream():
        length += len(chunk)
        if length <= limits.MOST_BODY_BYTES:
            chunks.append(chunk)
            continue
        chunks.clear()
        end_s = min(end_s, clock() + limits.LINGER_TIME_S)
        if length > limits.LINGER_BYTES or clock() > end_s:
            break
    if length > limits.MOST_BODY_BYTES:
        raise _too_large(length)
    return b"".join(chunks)


def _too_large(length: int) -> ApiError:
    return ApiError(
        413,
        f"body: expected at most {limits.MOST_BODY_BYTES} bytes, got {length} or more",
        "body_too_large",
        headers=_CLOSE,
    )


def _too_deep() -> ApiError:
    return ApiError(400, f"body: nested more than {limits.MOST_DEPTH} deep", "too_deep")


def check_depth(value: Any) -> None:
    """Refuse what is nested too deeply for those who walk through it later.

    Raises:
        ApiError: it is.
    """
    level: list[Any] = [value]
    for _ in range(limits.MOST_DEPTH):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return
    raise _too_deep()


def _parts(value: Any) -> list[Any]:
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _placed(problem: str) -> tuple[str, str | None]:
    """A message of msgspec as ours: "expected ... - at `$.n`" becomes "n: expected ..."."""
    text, _, place = problem.partition(" - at `")
    text = text[:1].lower() + text[1:].replace("`", "")
    path = re.sub(r"^\$\.?", "", place.rstrip("`"))
    if missing := re.fullmatch(r"object missing required field (\w+)", text):
        path = f"{path}.{missing[1]}".lstrip(".")
        text = "expected a value, got none"
    return (f"{path}: {text}", path) if path else (f"body: {text}", None)
