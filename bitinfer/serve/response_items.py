"""``ResponseItems``: the deltas of a reply as the output items of OpenAI's Responses API."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

Event = tuple[str, dict[str, Any]]  # its name and what it tells

# Name in a delta -> prefix of its item's id, what all items of its type have, type of its part.
_TEXTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "reasoning_content": ("rs", {"type": "reasoning", "summary": []}, "reasoning_text"),
    "content": ("msg", {"type": "message", "role": "assistant"}, "output_text"),
}


class ResponseItems:
    """Thinking, messages and function calls, in the order in which they came.

    Attributes:
        items: Those that have begun; the last may still be written.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._open = ""  # name of the delta that the last item is made of; "": it is complete
        self._pieces: list[str] = []

    def add(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        """Take a delta; yield the events that it makes."""
        for name, value in delta.items():
            if name == "tool_calls":
                yield from self._close("completed")
                for call in value:
                    yield from self._call(call)
                continue
            if name != self._open:
                yield from self._close("completed")
                yield from self._begin(name)
            self._pieces.append(value)
            yield self._told("delta", delta=value)

    def finish(self, cut: bool) -> Iterator[Event]:
        """The reply has ended, or was ``cut``; one without any item gets an empty message."""
        if not self.items:
            yield from self._begin("content")
        yield from self._close("incomplete" if cut else "completed")

    def _begin(self, name: str) -> Iterator[Event]:
        self._open, self._pieces = name, []
        prefix, item, _ = _TEXTS[name]
        begun = {"id": _new_id(prefix), "status": "in_progress", "content": []}
        yield self._added({**item, **begun})
        yield "response.content_part.added", {**self._place, "content_index": 0, "part": self._part}

    def _close(self, status: str) -> Iterator[Event]:
        if not self._open:
            return
        part = self._part
        yield self._told("done", text=part["text"])
        yield "response.content_part.done", {**self._place, "content_index": 0, "part": part}
        yield self._done({"status": status, "content": [part]})
        self._open = ""

    def _call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = call["function"]
        item = {"type": "function_call", "id": _new_id("fc"), "status": "in_progress"}
        item |= {"call_id": call["id"], "name": function["name"], "arguments": ""}
        yield self._added(item)
        kind, arguments = "response.function_call_arguments", function["arguments"]
        yield f"{kind}.delta", {**self._place, "delta": arguments}
        yield f"{kind}.done", {**self._place, "name": item["name"], "arguments": arguments}
        yield self._done({"status": "completed", "arguments": arguments})

    def _added(self, item: dict[str, Any]) -> Event:
        self.items.append(item)
        index = len(self.items) - 1
        return "response.output_item.added", {"output_index": index, "item": item}

    def _done(self, changes: dict[str, Any]) -> Event:
        item = self.items[-1] = {**self.items[-1], **changes}
        index = len(self.items) - 1
        return "response.output_item.done", {"output_index": index, "item": item}

    def _told(self, what: str, **facts: str) -> Event:
        """An event about the text of the last item."""
        kind = _TEXTS[self._open][2]
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return f"response.{kind}.{what}", {**self._place, "content_index": 0, **facts, **more}

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}

    @property
    def _part(self) -> dict[str, Any]:
        """The part of the last item, as far as it has come."""
        kind = _TEXTS[self._open][2]
        part: dict[str, Any] = {"type": kind, "text": "".join(self._pieces)}
        return part | ({"annotations": [], "logprobs": []} if kind == "output_text" else {})


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"
