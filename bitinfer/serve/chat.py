"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

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
from bitinfer.serve.service import Prompt, Service
from bitinfer.serve.tools import ToolFormat


async def chat_completions(request: Request) -> Response:
    """Reply to a conversation, at once or in pieces."""
    service: Service = request.app.state.service
    body = await read(request, ChatRequest)
    service.check_model(body.model)
    answer = await start_chat(service, body, client_of(request, body.user))
    if body.stream:
        return event_stream(answer.pieces(), answer.close)
    try:
        return JsonResponse(await unless_gone(request, answer.whole()))
    finally:
        answer.close()


def client_of(request: Request, user: str | None) -> str:
    """Who asks, as far as one can tell."""
    return f"{request.client.host if request.client else ''}/{user or ''}"


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


class ChatAnswer:
    """The replies to one request."""

    def __init__(
        self,
        service: Service,
        body: ChatRequest,
        prompt: Prompt,
        streams: Sequence[Stream],
        tool_format: ToolFormat,
    ) -> None:
        self._service, self._body, self._streams = service, body, streams
        calls = bool(body.tools) and body.tool_choice != "none"
        plain = bool(body.regex or body.grammar or must_call(body))
        plain |= isinstance(body.response_format, JsonFormat | SchemaFormat)
        self.replies = [
            ChatReply(
                plain=plain, opened=prompt.opens_thinking, tools=tool_format if calls else None
            )
            for _ in streams
        ]
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.name,
        }

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        async for _ in self._service.deltas(self._streams):
            continue
        done = [stream.completion for stream in self._streams]
        choices = []
        for number, (reply, completion) in enumerate(zip(self.replies, done, strict=True)):
            message = reply.message(completion.text)
            choices.append(
                {
                    "index": number,
                    "message": {**message, "refusal": None},
                    "logprobs": self._logprobs(completion.logprobs),
                    "finish_reason": self.finish_reason(number),
                }
            )
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage(done),
        }

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events."""
        with_usage = bool(self._body.stream_options and self._body.stream_options.include_usage)
        rest: dict[str, Any] = {"usage": None} if with_usage else {}

        def chunk(number: int, delta: dict[str, Any], **more: Any) -> bytes:
            choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
            return event({**head, "choices": [choice | more], **rest})

        head = {**self._head, "object": "chat.completion.chunk"}
        waiting: list[list[TokenLogprob]] = [[] for _ in self._streams]
        try:
            for number in range(len(self._streams)):
                yield chunk(number, {"role": "assistant", "content": ""})
            async for number, delta in self._service.deltas(self._streams):
                reply, records = self.replies[number], waiting[number]
                if delta is None:
                    found = reply.finish()
                else:
                    records += delta.logprobs
                    found = reply.add(delta.text) if delta.text else []
                for part in found:
                    yield chunk(number, part, logprobs=self._logprobs(records))
                    records.clear()
                if delta is None:
                    reason, logprobs = self.finish_reason(number), self._logprobs(records)
                    yield chunk(number, {}, logprobs=logprobs, finish_reason=reason)
            if with_usage:
                done = [stream.completion for stream in self._streams]
                yield event({**head, "choices": [], "usage": usage(done)})
        except Exception as cause:  # the status has been sent
            yield event(api_error(cause).body)
        yield DONE

    def close(self) -> None:
        """Nobody wants what has not come yet."""
        for stream in self._streams:
            stream.cancel()

    def finish_reason(self, number: int) -> str:
        """Why a reply ended."""
        reason = self._streams[number].completion.finish_reason
        return "tool_calls" if self.replies[number].called and reason == "stop" else reason

    def _logprobs(self, records: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
        if not records or not self._body.logprobs:
            return None
        return chat_logprobs(self._service.model.tokenizer, records)
