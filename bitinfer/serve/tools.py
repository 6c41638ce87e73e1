"""Tool calls in the format of the model's own chat template: how they are forced, and parsed back.

Two formats cover the known templates: calls between <tool_call> tags (Hermes, Qwen), and a reply
that is nothing but the JSON of a call (Llama 3, Mistral, whose mark is a control token).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bitinfer.serve.schemas import Function

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_ARGUMENTS = ("arguments", "parameters")

# Words of JSON schema beside which an object may need properties that it does not name itself.
_OPENERS = {
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "dependentSchemas",
}
_OPENERS |= {"$ref", "allOf", "anyOf", "oneOf", "if", "not"}


class ToolFormat:
    """How a template has calls written."""

    def __init__(self, template: str) -> None:
        """Find the format in the source of a chat template."""
        self.known = "tools" in template
        self.tagged = _OPEN in template
        llama = '"parameters"' in template and '"arguments"' not in template
        self._arguments = _ARGUMENTS[llama]

    def grammar(self, functions: Sequence[Function]) -> str:
        """A Lark grammar of one call of one of the functions.

        The arguments of each are a rule of their own, where ``$ref`` finds its definitions.
        """
        calls, rules = [], []
        for number, function in enumerate(functions):
            name = json.dumps(function.name)
            head = json.dumps(f'{{"name":{name},"{self._arguments}":')
            schema = closed(function.parameters or {"type": "object"})
            schema["x-guidance"] = {"whitespace_flexible": False}
            calls.append(f"call{number}")
            rules.append(f'call{number}: {head} arguments{number} "}}"')
            rules.append(f"arguments{number}: %json {json.dumps(schema)}")
        call = f"({' | '.join(calls)})"
        if self.tagged:
            call = f'"{_OPEN}\\n" {call} "\\n{_CLOSE}"'
        return "\n".join([f"start: {call}", *rules, ""])


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose objects have no properties but those they name, unless it says more of them.

    A function takes no others, and a model that may invent some hardly comes to an end.
    """
    found = dict(schema)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(inner := found.get(key), dict):
            found[key] = {name: _closed(one) for name, one in inner.items()}
    if "items" in found:
        found["items"] = _closed(found["items"])
    if "properties" in found and _OPENERS.isdisjoint(found):
        found["additionalProperties"] = False
    elif "properties" not in found:
        for key in ("anyOf", "oneOf"):
            if isinstance(inner := found.get(key), list):
                found[key] = [_closed(one) for one in inner]
    return found


def _closed(schema: Any) -> Any:
    return closed(schema) if isinstance(schema, dict) else schema


class ToolCallParser:
    """Takes calls out of a reply that comes in pieces; what is no call stays text."""

    def __init__(self, tool_format: ToolFormat) -> None:
        self._tagged = tool_format.tagged
        self._held = ""
        self._inside = False  # behind an open tag, or in a reply that may be JSON
        self._found = False  # a call between tags
        self._decided = False  # the beginning of a reply without tags was seen

    def add(self, piece: str) -> list[str | dict[str, str]]:
        """Take a piece; return texts and calls (id, name, arguments) that are certain."""
        self._held += piece
        return self._tagged_parts() if self._tagged else self._bare_parts()

    def finish(self) -> list[str | dict[str, str]]:
        """Return what waits at the end of the reply."""
        held, self._held = self._held, ""
        if not held or (self._found and not held.strip()):
            return []
        calls = _calls(held) if self._inside else None
        return list(calls) if calls else [_OPEN * (self._tagged and self._inside) + held]

    def _tagged_parts(self) -> list[str | dict[str, str]]:
        """White space before a call is dropped, so it waits like the beginning of a tag."""
        parts: list[str | dict[str, str]] = []
        while True:
            before, tag, rest = self._held.partition(_CLOSE if self._inside else _OPEN)
            if not tag:
                break
            if not self._inside:
                parts.append(before.rstrip())
            elif calls := _calls(before):
                parts += calls
                self._found = True
            else:
                parts.append(_OPEN + before + tag)
            self._held, self._inside = rest, not self._inside
        if not self._inside:
            held = self._held
            begun = next((n for n in range(len(_OPEN), 0, -1) if held.endswith(_OPEN[:n])), 0)
            text = held[: len(held) - begun].rstrip()
            parts.append(text)
            self._held = held[len(text) :]
        return [part for part in parts if part]

    def _bare_parts(self) -> list[str | dict[str, str]]:
        if not self._decided and self._held.strip():
            self._decided, self._inside = True, self._held.lstrip()[0] in "{["
        if self._inside or not self._decided:
            return []
        text, self._held = self._held, ""
        return [text]


def arguments_of(text: str) -> Any:
    """Arguments as an object, which templates write as they like; a text that is none as it is."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _calls(text: str) -> list[dict[str, str]] | None:
    """The calls that a text is; None: it is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, Mapping) and "name" in call for call in calls):
        return None
    return [_call(call) for call in calls]


def _call(call: Mapping[str, Any]) -> dict[str, str]:
    arguments: Any = next((call[key] for key in _ARGUMENTS if key in call), {})
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "name": str(call["name"]),
        "arguments": arguments,
    }
