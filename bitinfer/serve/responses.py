"""POST /v1/responses: OpenAI's newer API: texts, thinking and function tools. Nothing is stored."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from itertools import count
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.serve.chat import ChatAnswer, start_chat
from bitinfer.serve.events import JsonResponse, event, event_stream, unless_gone
from bitinfer.serve.problems import api_error, refuse
from bitinfer.serve.reading import read
from bitinfer.serve.response_items import Event, ResponseItems
from bitinfer.serve.response_request import ResponsesRequest, chat_request
from bitinfer.serve.service import Service, client_of


async def responses(request: Request) -> Response:
    """Reply, at once or in pieces."""
    service: Service = request.app.state.service
    body = await read(request, ResponsesRequest)
    service.check_model(body.model)
    refuse(body, "previous_response_id", "background")
    answer = await start_chat(service, chat_request(body), client_of(request, body.user))
    written = _Written(answer, body)
    if body.stream:
        return event_stream(written.sent(), answer.close)
    try:
        await unless_gone(request, written.wait())
    finally:
        answer.close()
    return JsonResponse(written.whole)


class _Written:
    """A response as this API writes it."""

    def __init__(self, answer: ChatAnswer, body: ResponsesRequest) -> None:
        self._answer = answer
        self._items = ResponseItems()
        self._head: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": answer.service.name,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "tools": msgspec.to_builtins(body.tools or []),
            "tool_choice": msgspec.to_builtins(body.tool_choice or "auto"),
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "metadata": {},
            "error": None,
            "incomplete_details": None,
        }

    async def wait(self) -> None:
        """Until all is there."""
        async for _ in self._events():
            continue

    @property
    def whole(self) -> dict[str, Any]:
        """The response once it has ended."""
        usage = self._answer.usage
        return {
            **self._head,
            "status": "incomplete" if self._cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if self._cut else None,
            "output": self._items.items,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": usage["completion_tokens_details"],
                "total_tokens": usage["total_tokens"],
            },
        }

    async def sent(self) -> AsyncGenerator[bytes, None]:
        """The response as server-sent events."""
        numbers = count()

        def told(kind: str, facts: dict[str, Any]) -> bytes:
            return event({"type": kind, "sequence_number": next(numbers), **facts}, kind)

        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        yield told("response.created", {"response": begun})
        yield told("response.in_progress", {"response": begun})
        try:
            async for kind, facts in self._events():
                yield told(kind, facts)
            whole = self.whole
            yield told(f"response.{whole['status']}", {"response": whole})
        except Exception as cause:  # the status has been sent
            error = api_error(cause)
            yield told("error", {"code": error.code, "message": str(error), "param": error.param})

    async def _events(self) -> AsyncGenerator[Event, None]:
        """What happens to the output items."""
        async for part in self._answer.parts():
            for delta in part.deltas:
                for found in self._items.add(delta):
                    yield found
        for found in self._items.finish(self._cut):
            yield found

    @property
    def _cut(self) -> bool:
        return self._answer.finish_reason(0) == "length"
