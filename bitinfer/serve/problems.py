"""``ApiError``: what a client did wrong, in OpenAI's shape; and which errors of ours are that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bitinfer.errors import (
    ContextLengthError,
    GrammarError,
    HistoryError,
    HistoryLookupError,
    PromptError,
    QueueFullError,
    TokenizerError,
)
from bitinfer.json_file import shown
from bitinfer.serve import limits

_LOG = logging.getLogger("bitinfer.serve")
_MOST_CHARS = 500

# The class of OpenAI's errors, which its clients know them by.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}

_BAD_REQUESTS: tuple[tuple[type[Exception], str, str | None], ...] = (
    (ContextLengthError, "context_length_exceeded", "prompt"),
    (GrammarError, "grammar_error", None),
    (PromptError, "invalid_prompt", "prompt"),
    (TokenizerError, "chat_template_error", "messages"),
)


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        code: A word for programs.
        param: The field of the request that is at fault, if it is one.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(shown(message, _MOST_CHARS))
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if status == 503:
            self.headers.setdefault("retry-after", str(limits.RETRY_AFTER_S))

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def api_error(cause: Exception) -> ApiError:
    """What a client is told of an exception; of our own faults only that there was one."""
    if isinstance(cause, ApiError):
        return cause
    message = str(cause)
    if isinstance(cause, QueueFullError):
        headers = {"retry-after": str(cause.retry_after_s)}
        return ApiError(429, message, "queue_full", headers=headers)
    if isinstance(cause, HistoryLookupError):
        return ApiError(404, message, "not_found")
    if isinstance(cause, HistoryError):
        return ApiError(503, message, "history_failed")
    for kind, code, param in _BAD_REQUESTS:
        if isinstance(cause, kind):
            return ApiError(400, message, code, param or message.partition(":")[0])
    _LOG.error("a request failed", exc_info=cause)
    return ApiError(500, "the server failed: its log says more", "internal_error")


def refuse(body: object, *names: str) -> None:
    """Refuse fields that have no meaning here; a client that relies on one shall know.

    Raises:
        ApiError: one of them says something.
    """
    for name in names:
        if getattr(body, name):
            raise ApiError(400, f"{name}: not served here: leave it out", "not_supported", name)


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A field of the request has a wrong value; ``message`` begins with its name."""
    return ApiError(400, message, code, param or message.partition(":")[0])
