"""POST /v1/chat/completions; and `ChatAnswer`, which other APIs write in their own ways."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from bitinfer.generate import Completion
from bitinfer.sampling import TokenLogprob
from bitinfer.serve.backend import Stream
from bitinfer.serve.chat_reply import ChatReply
from bitinfer.serve.events import DONE, JsonResponse, event, event_stream, unless_gone
from bitinfer.serve.logprobs import chat_logprobs
from bitinfer.serve.options import chat_options, must_call, usage
from bitinfer.serve.problems import api_error
from bitinfer.serve.prompts import chat_prompt
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import ChatRequest, JsonFormat, SchemaFormat
from bitinfer.serve.service import Prompt, Service, client_of
from bitinfer.serve.tools import ToolFormat


async def chat_completions(request: Request) -> Response:
    """Reply to a conversation, at once or in pieces."""
    service: Service = request.app.state.service
    body = await read(request, ChatRequest)
    service.check_model(body.model)
    answer = await start_chat(service, body, client_of(request, body.user))
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": service.name,
    }
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return event_stream(_chunks(answer, head, with_usage), answer.close)
    try:
        await unless_gone(request, answer.wait())
    finally:
        answer.close()
    return JsonResponse(_whole(answer, head))


class Part(NamedTuple):
    """What a step added to a reply.

    Attributes:
        number: Which reply.
        deltas: As in OpenAI's chunks.
        logprobs: Of the tokens since the last part.
        ended: Nothing more comes.
    """

    number: int
    deltas: list[dict[str, Any]]
    logprobs: list[TokenLogprob]
    ended: bool


class ChatAnswer:
    """The replies to a conversation, as they come.

    Attributes:
        service: Who gives them.
        with_logprobs: Whether logprobs were asked for.
    """

    def __init__(
        self,
        service: Service,
        body: ChatRequest,
        prompt: Prompt,
        streams: Sequence[Stream],
        tool_format: ToolFormat,
    ) -> None:
        self.service = service
        self.with_logprobs = bool(body.logprobs)
        self._streams = streams
        calls = bool(body.tools) and body.tool_choice != "none"
        plain = bool(body.regex or body.grammar or must_call(body))
        plain |= isinstance(body.response_format, JsonFormat | SchemaFormat)
        tools = tool_format if calls else None
        self._replies = [
            ChatReply(plain=plain, opened=prompt.opens_thinking, tools=tools) for _ in streams
        ]

    async def parts(self) -> AsyncIterator[Part]:
        """Read the replies; not together with `wait`."""
        waiting: list[list[TokenLogprob]] = [[] for _ in self._streams]
        async for number, delta in self.service.deltas(self._streams):
            reply, records = self._replies[number], waiting[number]
            if delta is None:
                yield Part(number, reply.finish(), records, True)
                continue
            records += delta.logprobs
            if deltas := reply.add(delta.text, len(delta.token_ids)):
                waiting[number] = []
                yield Part(number, deltas, records, False)

    async def wait(self) -> None:
        """Until all is there."""
        async for _ in self.parts():
            continue

    def message(self, number: int) -> dict[str, Any]:
        """A whole reply, once all is there."""
        return self._replies[number].message

    def finish_reason(self, number: int) -> str:
        """Why a reply ended, once its message or last part is there."""
        reason = self._streams[number].completion.finish_reason
        return "tool_calls" if self._replies[number].called and reason == "stop" else reason

    @property
    def completions(self) -> list[Completion]:
        """What was generated, once all is there."""
        return [stream.completion for stream in self._streams]

    @property
    def usage(self) -> dict[str, Any]:
        """OpenAI's count of tokens, once all is there."""
        thought = sum(reply.thinking_tokens for reply in self._replies)
        return {
            **usage(self.completions),
            "completion_tokens_details": {"reasoning_tokens": thought},
        }

    @property
    def count(self) -> int:
        """How many replies."""
        return len(self._streams)

    def close(self) -> None:
        """Nobody wants what has not come yet."""
        for stream in self._streams:
            stream.cancel()


async def start_chat(service: Service, body: ChatRequest, client: str) -> ChatAnswer:
    """Queue the replies to a conversation.

    Raises:
        ApiError: the request cannot be served.
    """
    template = service.model.chat_template
    tool_format = ToolFormat(template.source if template else "")
    options = chat_options(body, tool_format)
    prompt = await service.prepare(lambda: chat_prompt(service, body, tool_format))
    streams = await service.submit([prompt], options, body.n or 1, None, client)
    return ChatAnswer(service, body, prompt, streams, tool_format)


def _whole(answer: ChatAnswer, head: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            "index": number,
            "message": {**answer.message(number), "refusal": None},
            "logprobs": _logprobs(answer, answer.completions[number].logprobs),
            "finish_reason": answer.finish_reason(number),
        }
        for number in range(answer.count)
    ]
    return {**head, "object": "chat.completion", "choices": choices, "usage": answer.usage}


async def _chunks(
    answer: ChatAnswer, head: dict[str, Any], with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events."""
    head = {**head, "object": "chat.completion.chunk"}
    rest: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(number: int, delta: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
        return event({**head, "choices": [choice | more], **rest})

    try:
        for number in range(answer.count):
            yield chunk(number, {"role": "assistant", "content": ""})
        async for part in answer.parts():
            logprobs = _logprobs(answer, part.logprobs)
            for delta in part.deltas:
                yield chunk(part.number, delta, logprobs=logprobs)
                logprobs = None
            if part.ended:
                reason = answer.finish_reason(part.number)
                yield chunk(part.number, {}, logprobs=logprobs, finish_reason=reason)
        if with_usage:
            yield event({**head, "choices": [], "usage": answer.usage})
    except Exception as cause:  # the status has been sent
        yield event(api_error(cause).body)
    yield DONE


def _logprobs(answer: ChatAnswer, records: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    if not records or not answer.with_logprobs:
        return None
    return chat_logprobs(answer.service.model.tokenizer, records)
