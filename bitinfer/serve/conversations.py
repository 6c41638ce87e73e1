"""/history: the conversations that the chat page and the command line share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.errors import HistoryError
from bitinfer.history import History
from bitinfer.serve import limits
from bitinfer.serve.events import JsonResponse, PieceResponse, event, event_stream
from bitinfer.serve.problems import ApiError, invalid
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import Text
from bitinfer.serve.service import Service

_POLL_S = 0.3  # how soon others see what was written
_EXTENSIONS = {"markdown": ("md", "text/markdown"), "json": ("json", "application/json")}

Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Title = Annotated[str, Meta(min_length=1, max_length=500)]
Reason = Annotated[str, Meta(min_length=1, max_length=32)]
Settings = Annotated[dict[str, bool | int | float | str | None], Meta(max_length=64)]


class NewMessage(Struct, kw_only=True):
    """POST /history/{number}/messages."""

    role: Literal["user", "assistant"]
    content: Text
    parent_id: Number | None = None
    finish_reason: Reason | None = None


class NewConversation(Struct, kw_only=True):
    """POST /history."""

    message: NewMessage
    system: Text | None = None
    settings: Settings = {}


class ChangedConversation(Struct, kw_only=True):
    """PATCH /history/{number}: what is left out stays."""

    title: Title | UnsetType = UNSET
    system: Text | UnsetType | None = UNSET
    settings: Settings | UnsetType = UNSET
    leaf_id: Number | UnsetType | None = UNSET


class ChangedMessage(Struct, kw_only=True):
    """PATCH /history/messages/{number}."""

    piece: Text = ""
    finish_reason: Reason | None = None


async def listed(request: Request) -> Response:
    """GET /history: conversations, the latest first; with ?search= those that hold its words."""
    text = request.query_params.get("search", "").strip()
    most = limits.MOST_CONVERSATIONS

    def work(history: History) -> list[dict[str, Any]]:
        if not text:
            return [asdict(found) for found in history.list(most)]
        excerpts: dict[int, str] = {}
        for hit in history.search(text, most):
            excerpts.setdefault(hit.conversation_id, hit.excerpt)
        found = [
            {**asdict(c), "excerpt": excerpts.get(c.id, "")}
            for c in history.list()
            if c.id in excerpts or text.casefold() in c.title.casefold()
        ]
        return found[:most]

    return JsonResponse({"data": await _service(request).history.use(work)})


async def created(request: Request) -> Response:
    """POST /history: begin a conversation with its first message."""
    body = await read(request, NewConversation)
    service = _service(request)

    def work(history: History) -> dict[str, Any]:
        number = history.new_conversation(
            model=service.name, system=body.system or None, settings=body.settings
        )
        _add(history, number, body.message)
        return _whole(history, number)

    return JsonResponse(await service.history.use(work), 201)


async def shown(request: Request) -> Response:
    """GET /history/{number}: a conversation with the messages of all its branches."""
    number = _number(request)
    return JsonResponse(await _service(request).history.use(lambda h: _whole(h, number)))


async def changed(request: Request) -> Response:
    """PATCH /history/{number}: rename it, take another branch, note what it is held with."""
    number = _number(request)
    body = await read(request, ChangedConversation)

    def work(history: History) -> dict[str, Any]:
        found = history.conversation(number)
        if body.title is not UNSET:
            history.rename(number, body.title)
        if body.system is not UNSET or body.settings is not UNSET:
            system = found.system if body.system is UNSET else body.system or None
            settings = found.settings if body.settings is UNSET else body.settings
            history.describe(number, system=system, settings=settings)
        if body.leaf_id is not UNSET:
            history.set_leaf(number, body.leaf_id)
        return asdict(history.conversation(number))

    return JsonResponse(await _service(request).history.use(work))


async def deleted(request: Request) -> Response:
    """DELETE /history/{number}: remove a conversation; its text is overwritten."""
    number = _number(request)
    await _service(request).history.use(lambda history: history.delete(number))
    return JsonResponse({"id": number, "deleted": True})


async def message_added(request: Request) -> Response:
    """POST /history/{number}/messages: add a message, the new end of the conversation."""
    number = _number(request)
    body = await read(request, NewMessage)

    def work(history: History) -> dict[str, Any]:
        return asdict(history.message(_add(history, number, body)))

    return JsonResponse(await _service(request).history.use(work), 201)


async def message_changed(request: Request) -> Response:
    """PATCH /history/messages/{number}: add a piece to a reply, or end it."""
    number = _number(request)
    body = await read(request, ChangedMessage)

    def work(history: History) -> None:
        if history.message(number).finish_reason is not None:
            raise invalid(f"piece: expected a message that is being written, got {number}")
        history.append(number, body.piece)
        if body.finish_reason is not None:
            history.finish(number, body.finish_reason)

    await _service(request).history.use(work)
    return JsonResponse({"id": number})


async def exported(request: Request) -> Response:
    """GET /history/{number}/export: the conversation as a file; ?format= markdown or json."""
    number = _number(request)
    form = request.query_params.get("format", "markdown")
    if form not in _EXTENSIONS:
        raise invalid(f"format: expected markdown or json, got {form}")
    extension, media_type = _EXTENSIONS[form]
    text = await _service(request).history.use(
        lambda history: history.export(number, form)  # type: ignore[arg-type]  # one of the two
    )
    name = f'attachment; filename="conversation-{number}.{extension}"'
    return Response(text, media_type=media_type, headers={"content-disposition": name})


async def events(request: Request) -> PieceResponse:
    """GET /history/events: an event whenever the page or a command has written."""
    service = _service(request)
    first = await service.history.use(lambda history: history.state())
    return event_stream(_changes(service, first), lambda: None)


async def _changes(service: Service, before: tuple[int, int]) -> AsyncGenerator[bytes, None]:
    yield event({}, "open")
    while not service.draining:
        await asyncio.sleep(_POLL_S)
        try:
            now = await service.history.use(lambda history: history.state())
        except HistoryError:
            return  # whoever asks again is told what it is
        if now != before:
            before = now
            yield event({}, "changed")


ROUTES = (
    ("GET", "/history", listed, None),
    ("POST", "/history", created, NewConversation),
    ("GET", "/history/events", events, None),
    ("GET", "/history/{number:int}", shown, None),
    ("PATCH", "/history/{number:int}", changed, ChangedConversation),
    ("DELETE", "/history/{number:int}", deleted, None),
    ("GET", "/history/{number:int}/export", exported, None),
    ("POST", "/history/{number:int}/messages", message_added, NewMessage),
    ("PATCH", "/history/messages/{number:int}", message_changed, ChangedMessage),
)


def _add(history: History, number: int, message: NewMessage) -> int:
    added = history.add_message(number, message.role, message.content, message.parent_id)
    if message.finish_reason is not None:
        history.finish(added, message.finish_reason)
    return added


def _whole(history: History, number: int) -> dict[str, Any]:
    messages = [asdict(message) for message in history.all_messages(number)]
    return {**asdict(history.conversation(number)), "messages": messages}


def _number(request: Request) -> int:
    number: int = request.path_params["number"]
    if number >= 2**63:
        raise ApiError(404, f"history: there is no number {number}", "not_found")
    return number


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
