"""``ChatReply``: the text of a reply as OpenAI's deltas: thinking, content, tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bitinfer.serve.tools import ToolCallParser, ToolFormat
from bitinfer.thinking import Part, ThinkingSplitter


class ChatReply:
    """One choice of an answer, in pieces or whole.

    Attributes:
        called: Whether the model called a tool.
    """

    def __init__(
        self, *, plain: bool = False, opened: bool = False, tools: ToolFormat | None = None
    ) -> None:
        """Begin a reply.

        Args:
            plain: All of it is content, as where a grammar holds.
            opened: The prompt ends with an open think-block.
            tools: How calls are written, if there may be any.
        """
        self.called = False
        self._calls = 0
        self._splitter = None if plain else ThinkingSplitter(opened)
        self._parser = None if tools is None else ToolCallParser(tools)

    def add(self, piece: str) -> list[dict[str, Any]]:
        """Take a piece; return the deltas that are certain."""
        parts = [Part(False, piece)] if self._splitter is None else self._splitter.add(piece)
        return self._deltas(parts)

    def finish(self) -> list[dict[str, Any]]:
        """Return what waits at the end."""
        deltas = self._deltas([] if self._splitter is None else self._splitter.finish())
        if self._parser is not None:
            deltas += [self._delta(part) for part in self._parser.finish()]
        return deltas

    def message(self, text: str) -> dict[str, Any]:
        """The whole message at once."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for delta in [*self.add(text), *self.finish()]:
            for name, value in delta.items():
                message[name] = value if message.get(name) is None else message[name] + value
        for call in message.get("tool_calls", ()):
            del call["index"]
        if message["content"] is None and not self.called:
            message["content"] = ""
        return message

    def _deltas(self, parts: Iterable[Part]) -> list[dict[str, Any]]:
        deltas = []
        for part in parts:
            if part.thinking:
                deltas.append({"reasoning_content": part.text})
            elif self._parser is None:
                deltas.append(self._delta(part.text))
            else:
                deltas += [self._delta(found) for found in self._parser.add(part.text)]
        return [delta for delta in deltas if "" not in delta.values()]

    def _delta(self, found: str | dict[str, str]) -> dict[str, Any]:
        if isinstance(found, str):
            return {"content": found}
        self.called = True
        function = {"name": found["name"], "arguments": found["arguments"]}
        call = {"index": self._calls, "id": found["id"], "type": "function", "function": function}
        self._calls += 1
        return {"tool_calls": [call]}
