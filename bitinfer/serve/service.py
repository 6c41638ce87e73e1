"""``Service``: what all routes share: the model, its backend, and how a prompt becomes streams."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request as WebRequest

from bitinfer.errors import BitinferError, ContextLengthError
from bitinfer.generate import Request, check_prompt
from bitinfer.history import History
from bitinfer.model import Model
from bitinfer.serve import limits
from bitinfer.serve.backend import Backend, Delta, Job, Stream
from bitinfer.serve.history_thread import HistoryThread
from bitinfer.serve.metrics import Metrics
from bitinfer.serve.problems import ApiError, api_error, invalid

Result = TypeVar("Result")
Options = Mapping[str, Any]

_PREPARERS = 2  # threads that render, tokenize and compile grammars


@dataclass(frozen=True)
class Prompt:
    """A prompt that fits the context.

    Attributes:
        token_ids: Its ids.
        opens_thinking: Whether the reply begins inside a think-block.
    """

    token_ids: Sequence[int]
    opens_thinking: bool = False


class Service:
    """A model that is served.

    Attributes:
        model: The model.
        name: What clients call it.
        started: When, in seconds of Unix time.
        metrics: Figures for /metrics.
        history: Conversations, if they are kept.
        draining: Set when the server is about to end.
    """

    def __init__(
        self, model: Model, backend: Backend, name: str, history: History | None = None
    ) -> None:
        self.model = model
        self.name = name
        self.backend = backend
        self.started = int(time.time())
        self.metrics = Metrics(backend, name)
        self.history = HistoryThread(history)
        self.draining = False
        longest = max(map(len, model.tokenizer.vocabulary.values()))
        self._most_chars = longest * model.context_length
        self._pool = ThreadPoolExecutor(_PREPARERS, "bitinfer-prepare")
        self._embedder = ThreadPoolExecutor(1, "bitinfer-embed")

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not served; no name means the one that is.

        Raises:
            ApiError: another model is wanted.
        """
        if name not in (None, "", self.name, f"{self.name}:latest"):
            raise ApiError(
                404,
                f"model: expected {self.name}, which is served here, got {name}",
                "model_not_found",
                "model",
            )

    def check_ready(self) -> None:
        """Refuse whoever wants a reply that will not come.

        Raises:
            ApiError: the server is about to end, or what runs the model has failed.
        """
        if self.draining:
            raise ApiError(503, "the server is about to end", "draining")
        if not self.backend.takes_jobs():
            raise ApiError(503, "the model does not run any more: restart the server", "dead")

    async def prepare(
        self, work: Callable[[], Result], limit_s: float | None = None, what: str = ""
    ) -> Result:
        """Do in a thread what could take long enough to keep others waiting.

        Raises:
            ApiError: ``work`` found bad input, or took more than ``limit_s``.
        """
        return await _done_in(self._pool, work, limit_s, what)

    async def embed(self, work: Callable[[], Result]) -> Result:
        """Like `prepare`, for what runs the model beside the backend: one at a time."""
        return await _done_in(self._embedder, work)

    async def submit(
        self,
        prompts: Sequence[Prompt],
        options: Options,
        n: int,
        max_tokens: int | None,
        client: str,
    ) -> list[Stream]:
        """Queue ``n`` replies to each prompt, those of one prompt side by side.

        Args:
            prompts: From `prompt`.
            options: Of `GenerateOptions`.
            n: Replies i of a prompt has the seed ``seed + i``.
            max_tokens: Where it is not in ``options``; None: to the end of the context.
            client: Who asks.

        Raises:
            ApiError: an option is out of range, a grammar is in error, the queue is full, or the
                server is not ready.
        """
        self.check_ready()
        if len(prompts) * n > limits.MOST_REPLIES:
            raise invalid(
                f"n: expected at most {limits.MOST_REPLIES} replies at once, got {len(prompts) * n}"
            )
        given = {name: value for name, value in options.items() if value is not None}
        seed = given.setdefault("seed", secrets.randbits(63))
        setup, model = self.model.setup, self.model

        def jobs() -> list[Job]:
            found = []
            for prompt in prompts:
                room = model.context_length - len(prompt.token_ids)
                request = Request.read(
                    given,  # type: ignore[arg-type]
                    model.sampling,
                    max_tokens or room,
                    setup.tokenizer.eos_token_ids,
                )
                for i in range(n):
                    one = request.with_seed(seed + i)
                    sampler = setup.sampler(one, prompt.token_ids)
                    found.append(Job(prompt.token_ids, one, sampler, client))
            return found

        limit_s = limits.GRAMMAR_TIME_S
        streams: list[Stream] = []
        try:
            for job in await self.prepare(jobs, limit_s, "grammar"):
                streams.append(self.backend.submit(job))
        except BaseException as cause:
            for stream in streams:
                stream.cancel()
            self.metrics.refused.labels(self.name).inc()
            raise (api_error(cause) if isinstance(cause, Exception) else cause) from None
        return streams

    async def deltas(self, streams: Sequence[Stream]) -> AsyncIterator[tuple[int, Delta | None]]:
        """The deltas of streams as they come, with the number of the stream; None at its end.

        However it ends, streams that have not ended are given up.
        """
        watch = self.metrics.watch()
        async with aclosing(_merged(streams)) as deltas:
            async for number, delta in deltas:
                if delta is None:
                    self.metrics.ended(streams[number].completion)
                else:
                    watch.token(number)
                yield number, delta

    def close(self) -> None:
        """End the backend; all that runs is given up."""
        self.draining = True
        self.backend.close()
        for pool in (self._pool, self._embedder):
            pool.shutdown(wait=False, cancel_futures=True)
        self.history.close()

    def check_length(self, texts: Iterable[str], param: str) -> None:
        """Refuse texts that cannot fit the context, before time is spent on tokenizing them.

        Raises:
            ApiError: were each token the longest there is, they would still be too long.
        """
        length = sum(map(len, texts))
        if length > self._most_chars:
            raise ApiError(
                400,
                f"{param}: expected at most {self.model.context_length} tokens, the context, got"
                f" {length} characters: shorten it",
                "context_length_exceeded",
                param,
            )

    def prompt(self, token_ids: Sequence[int], opens_thinking: bool = False) -> Prompt:
        """A prompt of token ids.

        Raises:
            PromptError: it is empty or holds an id outside the vocabulary.
            ContextLengthError: it leaves no room for one token.
        """
        try:
            check_prompt(self.model.engine, token_ids)
        except ContextLengthError as cause:  # without advice that a client cannot follow
            raise ContextLengthError(str(cause).partition(", or raise")[0]) from None
        return Prompt(token_ids, opens_thinking)


def client_of(request: WebRequest, user: str | None) -> str:
    """Who asks, as far as one can tell."""
    return f"{request.client.host if request.client else ''}/{user or ''}"


async def _done_in(
    pool: ThreadPoolExecutor,
    work: Callable[[], Result],
    limit_s: float | None = None,
    what: str = "",
) -> Result:
    """What ``work`` returns; what it refuses is the client's fault."""
    future = asyncio.get_running_loop().run_in_executor(pool, work)
    try:
        return await asyncio.wait_for(future, limit_s)
    except asyncio.TimeoutError:
        raise invalid(f"{what}: not ready within {limit_s:g} s: make it simpler") from None
    except BitinferError as cause:
        raise api_error(cause) from None
    except ValueError as cause:
        raise invalid(str(cause)) from None


async def _merged(streams: Sequence[Stream]) -> AsyncGenerator[tuple[int, Delta | None], None]:
    """`Service.deltas`, not counted."""

    async def pull(number: int) -> tuple[int, Delta | None]:
        return number, await anext(streams[number], None)

    pulls = {asyncio.ensure_future(pull(number)) for number in range(len(streams))}
    try:
        while pulls:
            done, pulls = await asyncio.wait(pulls, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number, delta = task.result()
                if delta is not None:
                    pulls.add(asyncio.ensure_future(pull(number)))
                yield number, delta
    finally:
        for stream in streams:
            stream.cancel()
        for task in pulls:
            task.cancel()
