"""Ollama's /api/chat and /api/generate; each request becomes one of OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.serve import limits
from bitinfer.serve.chat import ChatAnswer, start_chat
from bitinfer.serve.events import JsonResponse, PieceResponse, unless_gone
from bitinfer.serve.ollama_models import time_text
from bitinfer.serve.problems import api_error, refuse
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import (
    ChatMessage,
    ChatRequest,
    FreeJson,
    FunctionCall,
    JsonFormat,
    NamedSchema,
    SchemaFormat,
    Stop,
    Stops,
    Text,
    Tool,
    ToolCall,
)
from bitinfer.serve.service import Service, client_of
from bitinfer.serve.tools import arguments_of

# Ollama's name of a setting -> ours, where they differ.
_NAMES = {
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "repetition_window",
}
Format = Literal["json", ""] | FreeJson | None


class Options(Struct, kw_only=True):
    """Settings; those that mean nothing here (num_ctx and the like) are ignored."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    stop: Stop | Stops | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_predict: int | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None


class OllamaFunctionCall(Struct):
    """A call whose arguments are an object."""

    name: str
    arguments: FreeJson


class OllamaToolCall(Struct):
    """A call that the model made before."""

    function: OllamaFunctionCall


class OllamaMessage(Struct):
    """A message; images are not taken."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text = ""
    thinking: Text | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    images: list[str] | None = None


class OllamaChat(Struct, kw_only=True):
    """POST /api/chat."""

    model: str
    messages: Annotated[list[OllamaMessage], Meta(min_length=1, max_length=limits.MOST_MESSAGES)]
    stream: bool = True
    options: Options | None = None
    format: Format = None
    tools: Annotated[list[Tool], Meta(max_length=limits.MOST_TOOLS)] | None = None
    think: bool | str | None = None


class OllamaGenerate(Struct, kw_only=True):
    """POST /api/generate."""

    model: str
    prompt: Text
    system: Text = ""
    stream: bool = True
    options: Options | None = None
    format: Format = None
    think: bool | str | None = None
    raw: bool | None = None
    suffix: str | None = None
    images: list[str] | None = None


async def chat(request: Request) -> Response:
    """Reply to a conversation."""
    body = await read(request, OllamaChat)
    messages = [_message(message) for message in body.messages]

    def piece(delta: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": delta.get("content") or ""}
        if thinking := delta.get("reasoning_content"):
            message["thinking"] = thinking
        if calls := delta.get("tool_calls"):
            functions = [call["function"] for call in calls]
            message["tool_calls"] = [
                {"function": {"name": f["name"], "arguments": arguments_of(f["arguments"])}}
                for f in functions
            ]
        return {"message": message}

    return await _answer(request, body, messages, piece)


async def generate(request: Request) -> Response:
    """Reply to a question."""
    body = await read(request, OllamaGenerate)
    refuse(body, "raw", "suffix", "images")
    messages = [ChatMessage("system", body.system)] if body.system else []

    def piece(delta: dict[str, Any]) -> dict[str, Any]:
        found = {"response": delta.get("content") or ""}
        if thinking := delta.get("reasoning_content"):
            found["thinking"] = thinking
        return found

    return await _answer(request, body, [*messages, ChatMessage("user", body.prompt)], piece)


def _message(message: OllamaMessage) -> ChatMessage:
    refuse(message, "images")
    calls = [
        ToolCall(
            FunctionCall(call.function.name, msgspec.json.encode(call.function.arguments).decode())
        )
        for call in message.tool_calls or ()
    ]
    return ChatMessage(
        message.role,
        message.content,
        name=message.tool_name,
        tool_calls=calls or None,
        reasoning_content=message.thinking,
    )


def _chat_request(body: OllamaChat | OllamaGenerate, messages: list[ChatMessage]) -> ChatRequest:
    """The request as OpenAI's API has it."""
    found: dict[str, Any] = {}
    if body.options is not None:
        given = msgspec.structs.asdict(body.options)
        found = {_NAMES.get(name, name): value for name, value in given.items()}
    for name in ("max_tokens", "repetition_window"):  # -1: without limit
        found[name] = found[name] if (found.get(name) or 0) > 0 else None
    if body.format == "json":
        found["response_format"] = JsonFormat()
    elif isinstance(body.format, dict):
        found["response_format"] = SchemaFormat(NamedSchema(body.format))
    if body.think is not None:
        found["chat_template_kwargs"] = {"enable_thinking": body.think is not False}
    return ChatRequest(messages=messages, tools=getattr(body, "tools", None), **found)


async def _answer(
    request: Request,
    body: OllamaChat | OllamaGenerate,
    messages: list[ChatMessage],
    piece: Callable[[dict[str, Any]], dict[str, Any]],
) -> Response:
    service: Service = request.app.state.service
    service.check_model(body.model)
    answer = await start_chat(service, _chat_request(body, messages), client_of(request, None))
    head = {"model": body.model}
    if body.stream:
        return PieceResponse(_lines(answer, head, piece), "application/x-ndjson", answer.close)
    try:
        await unless_gone(request, answer.wait())
    finally:
        answer.close()
    message = answer.message(0)
    return JsonResponse({**head, **piece(message), **_end(answer)})


async def _lines(
    answer: ChatAnswer, head: dict[str, Any], piece: Callable[[dict[str, Any]], dict[str, Any]]
) -> AsyncGenerator[bytes, None]:
    """The answer as a JSON object in each line."""
    try:
        async for part in answer.parts():
            for delta in part.deltas:
                line = {**head, "created_at": time_text(), **piece(delta), "done": False}
                yield msgspec.json.encode(line) + b"\n"
        yield msgspec.json.encode({**head, **piece({}), **_end(answer)}) + b"\n"
    except Exception as cause:  # the status has been sent
        yield msgspec.json.encode({"error": str(api_error(cause))}) + b"\n"


def _end(answer: ChatAnswer) -> dict[str, Any]:
    """What the last line tells."""
    done = answer.completions[0]
    times = done.usage.prefill_s, done.usage.decode_s
    prefill_ns, decode_ns = (int(seconds * 1e9) for seconds in times)
    return {
        "created_at": time_text(),
        "done": True,
        "done_reason": done.finish_reason,
        "total_duration": prefill_ns + decode_ns,
        "load_duration": 0,
        "prompt_eval_count": done.usage.prompt_tokens,
        "prompt_eval_duration": prefill_ns,
        "eval_count": done.usage.completion_tokens,
        "eval_duration": decode_ns,
    }
