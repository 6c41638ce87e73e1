"""POST /v1/completions: plain texts are continued."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bitinfer.sampling import TokenLogprob
from bitinfer.serve import limits
from bitinfer.serve.backend import Stream
from bitinfer.serve.events import DONE, JsonResponse, event, event_stream, unless_gone
from bitinfer.serve.logprobs import completion_logprobs
from bitinfer.serve.options import generation_options, usage
from bitinfer.serve.problems import api_error, invalid, refuse
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import CompletionRequest
from bitinfer.serve.service import Prompt, Service, client_of

_MAX_TOKENS = 16  # as OpenAI's, where the request names none


async def completions(request: Request) -> Response:
    """Continue one prompt or several, at once or in pieces."""
    service: Service = request.app.state.service
    body = await read(request, CompletionRequest)
    service.check_model(body.model)
    refuse(body, "echo", "suffix")
    n = body.n or 1
    if body.best_of not in (None, n):
        raise invalid(f"best_of: expected n, {n}, got {body.best_of}")
    options = {**generation_options(body), "logprobs": body.logprobs}
    prompts = await service.prepare(lambda: _prompts(service, body))
    client = client_of(request, body.user)
    streams = await service.submit(prompts, options, n, _MAX_TOKENS, client)
    answer = _Answer(service, streams, len(prompts))
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return event_stream(answer.chunks(with_usage), answer.close)
    try:
        return JsonResponse(await unless_gone(request, answer.whole()))
    finally:
        answer.close()


def _prompts(service: Service, body: CompletionRequest) -> list[Prompt]:
    """The prompts: one text, one list of token ids, or a list of either.

    Raises:
        ApiError: it is something else, or too many.
        PromptError: one of them cannot be continued.
    """
    given = body.prompt
    if isinstance(given, str) or (given and all(isinstance(i, int) for i in given)):
        given = [given]  # type: ignore[list-item]
    if not given or any(isinstance(prompt, int) for prompt in given):
        raise invalid("prompt: expected a text, token ids, or a list of either")
    if len(given) > limits.MOST_REPLIES:
        raise invalid(f"prompt: expected at most {limits.MOST_REPLIES}, got {len(given)}")
    for prompt in given:
        service.check_length([prompt] if isinstance(prompt, str) else [], "prompt")
    setup = service.model.setup
    return [service.prompt(setup.prompt_ids(prompt)) for prompt in given]  # type: ignore[arg-type]


class _Answer:
    """The continuations of one request."""

    def __init__(self, service: Service, streams: Sequence[Stream], prompts: int) -> None:
        self._service, self._streams, self._prompts = service, streams, prompts
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        async for _ in self._service.deltas(self._streams):
            continue
        done = [stream.completion for stream in self._streams]
        choices = [
            {
                "index": number,
                "text": completion.text,
                "logprobs": self._logprobs(completion.logprobs, 0),
                "finish_reason": completion.finish_reason,
            }
            for number, completion in enumerate(done)
        ]
        return {**self._head, "choices": choices, "usage": usage(done, self._prompts)}

    async def chunks(self, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events."""
        rest: dict[str, Any] = {"usage": None} if with_usage else {}
        waiting: list[list[TokenLogprob]] = [[] for _ in self._streams]
        offsets = [0] * len(self._streams)
        try:
            async for number, delta in self._service.deltas(self._streams):
                text, reason = "", None
                if delta is None:
                    reason = self._streams[number].completion.finish_reason
                else:
                    waiting[number] += delta.logprobs
                    text = delta.text
                if not text and reason is None:
                    continue
                logprobs = self._logprobs(waiting[number], offsets[number])
                waiting[number] = []
                offsets[number] += len(text)
                choice = {"index": number, "text": text, "logprobs": logprobs}
                yield event(
                    {**self._head, "choices": [{**choice, "finish_reason": reason}], **rest}
                )
            if with_usage:
                done = [stream.completion for stream in self._streams]
                yield event({**self._head, "choices": [], "usage": usage(done, self._prompts)})
        except Exception as cause:  # the status has been sent
            yield event(api_error(cause).body)
        yield DONE

    def close(self) -> None:
        """Nobody wants what has not come yet."""
        for stream in self._streams:
            stream.cancel()

    def _logprobs(
        self, records: Sequence[TokenLogprob] | None, offset: int
    ) -> dict[str, Any] | None:
        if not records:
            return None
        return completion_logprobs(self._service.model.tokenizer, records, offset)
