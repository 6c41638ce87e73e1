"""POST /v1/responses: the part of OpenAI's newer API that is about text. Nothing is stored."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from itertools import count
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.serve import limits
from bitinfer.serve.chat import ChatAnswer, start_chat
from bitinfer.serve.events import JsonResponse, event, event_stream, unless_gone
from bitinfer.serve.problems import api_error, refuse
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import (
    ChatMessage,
    ChatRequest,
    Count,
    FreeJson,
    JsonFormat,
    NamedSchema,
    PlainFormat,
    SchemaFormat,
    Text,
)
from bitinfer.serve.service import Service, client_of


class InputText(Struct, tag_field="type", tag="input_text"):
    """What a user wrote."""

    text: Text


class OutputText(Struct, tag_field="type", tag="output_text"):
    """What a model wrote before."""

    text: Text


class InputMessage(Struct):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[InputText | OutputText]
    type: Literal["message"] = "message"


class FlatSchema(Struct, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    schema: FreeJson
    name: str = "schema"


class TextOptions(Struct):
    """What form the text has."""

    format: PlainFormat | JsonFormat | FlatSchema | None = None


Messages = Annotated[list[InputMessage], Meta(min_length=1, max_length=limits.MOST_MESSAGES)]


class ResponsesRequest(Struct, kw_only=True):
    """POST /v1/responses."""

    input: Text | Messages
    model: str | None = None
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    text: TextOptions = field(default_factory=TextOptions)
    user: Annotated[str, Meta(max_length=256)] | None = None
    tools: list[FreeJson] | None = None
    previous_response_id: str | None = None
    background: bool | None = None


async def responses(request: Request) -> Response:
    """Reply, at once or in pieces."""
    service: Service = request.app.state.service
    body = await read(request, ResponsesRequest)
    service.check_model(body.model)
    refuse(body, "tools", "previous_response_id", "background")
    answer = await start_chat(service, _chat_request(body), client_of(request, body.user))
    written = _Written(answer, body)
    if body.stream:
        return event_stream(written.events(), answer.close)
    try:
        await unless_gone(request, answer.wait())
    finally:
        answer.close()
    return JsonResponse(written.whole(answer.message(0)))


def _chat_request(body: ResponsesRequest) -> ChatRequest:
    messages = [ChatMessage("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        messages.append(ChatMessage("user", body.input))
    else:
        for message in body.input:
            content = message.content
            if isinstance(content, list):
                content = "\n".join(part.text for part in content)
            messages.append(ChatMessage(message.role, content))
    form: Any = body.text.format
    if isinstance(form, FlatSchema):
        form = SchemaFormat(NamedSchema(form.schema, form.name))
    sampling: dict[str, Any] = {"temperature": body.temperature, "top_p": body.top_p}
    return ChatRequest(
        messages=messages, max_tokens=body.max_output_tokens, response_format=form, **sampling
    )


class _Written:
    """A response as this API writes it."""

    def __init__(self, answer: ChatAnswer, body: ResponsesRequest) -> None:
        self._answer = answer
        self._message_id = f"msg_{secrets.token_hex(12)}"
        self._reasoning_id = f"rs_{secrets.token_hex(12)}"
        self._head: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": answer.service.name,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "metadata": {},
            "error": None,
            "incomplete_details": None,
        }

    def whole(self, message: dict[str, Any]) -> dict[str, Any]:
        """The response once it has ended."""
        done = self._answer.completions[0]
        cut = done.finish_reason == "length"
        usage = {
            "input_tokens": done.usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": done.usage.cached_tokens},
            "output_tokens": done.usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": done.usage.prompt_tokens + done.usage.completion_tokens,
        }
        output = [self._message(message["content"] or "")]
        if thinking := message.get("reasoning_content"):
            content = [{"type": "reasoning_text", "text": thinking}]
            output.insert(
                0,
                {"type": "reasoning", "id": self._reasoning_id, "summary": [], "content": content},
            )
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": output,
            "usage": usage,
        }

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response as server-sent events; thinking comes whole, at the end."""
        numbers = count()

        def told(kind: str, **facts: Any) -> bytes:
            return event({"type": kind, "sequence_number": next(numbers), **facts}, kind)

        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        found = {"content": "", "reasoning_content": ""}
        try:
            begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
            yield told("response.created", response=begun)
            yield told("response.in_progress", response=begun)
            item = {**self._message(""), "status": "in_progress", "content": []}
            yield told("response.output_item.added", output_index=0, item=item)
            yield told("response.content_part.added", **place, part=_part(""))
            async for part in self._answer.parts():
                for delta in part.deltas:
                    for name, text in delta.items():
                        found[name] += text
                    if text := delta.get("content"):
                        yield told("response.output_text.delta", **place, delta=text, logprobs=[])
            text = found["content"]
            yield told("response.output_text.done", **place, text=text, logprobs=[])
            yield told("response.content_part.done", **place, part=_part(text))
            yield told("response.output_item.done", output_index=0, item=self._message(text))
            whole = self.whole(found)
            yield told(f"response.{whole['status']}", response=whole)
        except Exception as cause:  # the status has been sent
            error = api_error(cause)
            yield told("error", code=error.code, message=str(error), param=error.param)

    def _message(self, text: str) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._message_id,
            "status": "completed",
            "role": "assistant",
            "content": [_part(text)],
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
