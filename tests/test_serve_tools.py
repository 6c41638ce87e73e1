"""Tool calls are found in a reply, wherever its pieces are cut."""

from __future__ import annotations

import json

import pytest

from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve.chat_reply import ChatReply
from bitinfer.serve.schemas import Function
from bitinfer.serve.tools import ToolFormat, closed

TAGGED, BARE = ToolFormat("tools <tool_call>"), ToolFormat('tools "parameters"')
CALL = '{"name": "f", "arguments": {"x": 1}}'
F1 = ("f", {"x": 1})

# Reply -> its content, the calls in it.
REPLIES = [
    (TAGGED, "Hello <b>.", "Hello <b>.", []),
    (TAGGED, "a < b <tool", "a < b <tool", []),
    (TAGGED, f"<tool_call>\n{CALL}\n</tool_call>", None, [F1]),
    (TAGGED, f"Let me see.\n<tool_call>{CALL}</tool_call>\n", "Let me see.", [F1]),
    (TAGGED, f"<tool_call>{CALL}</tool_call> Done. \n", " Done.", [F1]),
    (TAGGED, " Hello. \n", " Hello. \n", []),
    (TAGGED, f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", None, [F1, F1]),
    (TAGGED, f"<tool_call>{CALL}", None, [F1]),  # cut behind the call
    (TAGGED, "<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
    (TAGGED, '<tool_call>{"name": "f"', '<tool_call>{"name": "f"', []),
    (TAGGED, "<tool_call>" + "[" * 99999, "<tool_call>" + "[" * 99999, []),
    (BARE, "Hello {x}.", "Hello {x}.", []),
    (BARE, ' {"name": "f", "parameters": {"x": 1}}', None, [F1]),
    (BARE, f"[{CALL}, {CALL}]", None, [F1, F1]),
    (BARE, '{"color": "blue"}', '{"color": "blue"}', []),
    (BARE, '{"name": 7', '{"name": 7', []),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), REPLIES)
def test_calls_are_found_wherever_the_pieces_are_cut(form, text, content, calls):
    cuts = range(len(text) + 1) if len(text) < 200 else [0, 15]
    for cut in cuts:
        reply = ChatReply(tools=form)
        deltas = [*reply.add(text[:cut]), *reply.add(text[cut:]), *reply.finish()]
        assert "".join(delta.get("content", "") for delta in deltas) == (content or "")
        found = [call for delta in deltas for call in delta.get("tool_calls", ())]
        functions = [call["function"] for call in found]
        assert [(f["name"], json.loads(f["arguments"])) for f in functions] == calls
        assert [call["index"] for call in found] == list(range(len(calls)))
        assert len({call["id"] for call in found}) == len(calls)
        assert reply.called == bool(calls)


def test_a_whole_message_is_made_of_the_same_parts():
    reply = ChatReply(tools=TAGGED)
    reply.add(f"<think>Hm.</think>\n\nYes.<tool_call>{CALL}</tool_call>")
    reply.finish()
    message = reply.message
    assert message["reasoning_content"] == "Hm."
    assert message["content"] == "Yes."
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["f"]
    assert "index" not in message["tool_calls"][0]


CITY = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}
CLOSED = {**CITY, "additionalProperties": False}
SCHEMAS = {
    "plain": (CITY, CLOSED),
    "open": ({**CITY, "additionalProperties": True}, {**CITY, "additionalProperties": True}),
    "inside": (
        {"type": "array", "items": {"anyOf": [CITY, {"type": "null"}]}},
        {"type": "array", "items": {"anyOf": [CLOSED, {"type": "null"}]}},
    ),
    "defined": (
        {"properties": {"a": {"$ref": "#/$defs/A"}, "b": True}, "$defs": {"A": CITY}},
        {
            "properties": {"a": {"$ref": "#/$defs/A"}, "b": True},
            "$defs": {"A": CLOSED},
            "additionalProperties": False,
        },
    ),
    "joined": ({**CITY, "allOf": [{"properties": {"x": {}}}]},) * 2,
    "branches": ({**CITY, "anyOf": [CITY, {"properties": {"x": {}}}]},) * 2,
    "a property of that name": (
        {"properties": {"properties": CITY}},
        {"properties": {"properties": CLOSED}, "additionalProperties": False},
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_arguments_are_those_that_a_function_names(name):
    schema, expected = SCHEMAS[name]
    before = json.dumps(schema)
    assert closed(schema) == expected
    assert json.dumps(schema) == before


NESTED = {
    "type": "object",
    "properties": {"place": {"$ref": "#/$defs/Place"}},
    "required": ["place"],
    "$defs": {"Place": CITY},
}
ODD, PLAIN = Function("a.b-c", parameters=NESTED), Function("f", parameters=CITY)
ROME = {"city": "Rome"}


@pytest.mark.parametrize("form", [TAGGED, BARE])
def test_a_forced_call_is_one_of_the_functions_with_its_arguments(form):
    with Model.load(default_model(), num_threads=1) as model:
        for functions in ([ODD], [PLAIN], [ODD, PLAIN]):
            grammar = form.grammar(functions)
            text = model.generate("Hi", grammar=grammar, temperature=0, max_tokens=200).text
            reply = ChatReply(tools=form)
            reply.add(text)
            reply.finish()
            (call,) = reply.message["tool_calls"]
            found = call["function"]["name"], json.loads(call["function"]["arguments"])
            expected = {"a.b-c": {"place": ROME}, "f": ROME}
            assert found in [(function.name, expected[function.name]) for function in functions]
