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
        thinking_tokens: Tokens up to the end of the think-block, if there is one.
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
        self.thinking_tokens = 0
        self._tokens = 0
        self._calls = 0
        self._given: list[dict[str, Any]] = []
        self._splitter = None if plain else ThinkingSplitter(opened)
        self._parser = None if tools is None else ToolCallParser(tools)

    def add(self, piece: str, tokens: int = 1) -> list[dict[str, Any]]:
        """Take a piece, which ``tokens`` brought; return the deltas that are certain."""
        self._tokens += tokens
        if self._splitter is None:
            return self._deltas([Part(False, piece)])
        inside = self._splitter.thinking
        parts = self._splitter.add(piece)
        if inside or self._splitter.thinking or any(part.thinking for part in parts):
            self.thinking_tokens = self._tokens
        return self._deltas(parts)

    def finish(self) -> list[dict[str, Any]]:
        """Return what waits at the end."""
        deltas = self._deltas([] if self._splitter is None else self._splitter.finish())
        if self._parser is not None:
            last = [self._delta(part) for part in self._parser.finish()]
            self._given += last
            deltas += last
        return deltas

    @property
    def message(self) -> dict[str, Any]:
        """The whole message, once it is finished."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for delta in self._given:
            for name, value in delta.items():
                message[name] = value if message.get(name) is None else message[name] + value
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{k: v for k, v in c.items() if k != "index"} for c in calls]
        elif message["content"] is None:
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
        deltas = [delta for delta in deltas if "" not in delta.values()]
        self._given += deltas
        return deltas

    def _delta(self, found: str | dict[str, str]) -> dict[str, Any]:
        if isinstance(found, str):
            return {"content": found}
        self.called = True
        function = {"name": found["name"], "arguments": found["arguments"]}
        call = {"index": self._calls, "id": found["id"], "type": "function", "function": function}
        self._calls += 1
        return {"tool_calls": [call]}
