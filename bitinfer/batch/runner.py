"""``Runner``: answers rows as the server would, by its own application, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import Message

from bitinfer.batch.results import Answer, Fault, write_result
from bitinfer.batch.rows import CHAT, COMPLETIONS, RowError, digest_of, read_row
from bitinfer.errors import BatchError
from bitinfer.model import Model
from bitinfer.serve import limits
from bitinfer.serve.app import make_app
from bitinfer.serve.batching import BatchingBackend
from bitinfer.serve.guard import Access
from bitinfer.serve.problems import ApiError
from bitinfer.serve.service import Service

Options = Mapping[str, Any]


class Runner:
    """A model that answers rows, many at once in one batch.

    Attributes:
        at_once: How many rows are worth asking at once: the next are tokenized meanwhile.
    """

    def __init__(
        self, model: Model, *, slots: int, name: str, defaults: Options | None = None
    ) -> None:
        """Start the batch.

        Args:
            model: Stays the caller's.
            slots: Most replies that are generated at once.
            name: What rows may call the model.
            defaults: Fields for chats and completions that do not have them. Row i has the seed
                ``seed + i``, so that no two rows draw alike; ``max_tokens`` is the model's.
        """
        self.at_once = 2 * slots
        given = {name: value for name, value in (defaults or {}).items() if value is not None}
        self._defaults: dict[str, Any] = {"max_tokens": model.max_tokens, **given}
        self._seed = self._defaults.pop("seed", 0)
        backend = BatchingBackend(
            model.engine,
            model.setup,
            slots=slots,
            queue_limit=self.at_once * limits.MOST_REPLIES,  # so that none is refused
        )
        self._service = Service(model, backend, name)
        self._app = make_app(self._service, Access())

    async def answer(self, number: int, line: bytes) -> bytes:
        """The line of the output for a row; what is wrong with the row stands there.

        Raises:
            BatchError: the batch has ended, and no row can be answered.
        """
        digest = digest_of(line)
        try:
            row = read_row(line)
            if row.body.get("stream"):
                raise RowError("stream: expected false in a batch", row.custom_id)
        except RowError as error:
            return write_result(
                number, digest, error.custom_id, None, Fault("invalid_row", str(error))
            )
        if row.url in (CHAT, COMPLETIONS):
            for field, value in {**self._defaults, "seed": self._seed + number}.items():
                if row.body.get(field) is None:
                    row.body[field] = value
        reply = await self._ask(row.url, msgspec.json.encode(row.body))
        if reply.status_code >= 500:
            self._check_alive(number)
        return write_result(number, digest, row.custom_id, reply, None)

    def close(self) -> None:
        """Give up all that runs."""
        self._service.close()

    def _check_alive(self, number: int) -> None:
        """Tell an error of one row from one that all rows would get."""
        try:
            self._service.check_ready()
        except ApiError:
            raise BatchError(
                f"row {number}: the model does not run any more: the same command goes on"
            ) from None

    async def _ask(self, path: str, body: bytes) -> Answer:
        """Status, request id and body of what the application says."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        request: list[Message] = [{"type": "http.request", "body": body}]
        sent: list[Message] = []

        async def receive() -> Message:
            return request.pop() if request else await asyncio.Future()  # it never goes away

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        headers = dict(sent[0]["headers"])
        content = b"".join(message["body"] for message in sent[1:])
        request_id = headers[b"x-request-id"].decode()
        return Answer(sent[0]["status"], request_id, msgspec.Raw(content))
