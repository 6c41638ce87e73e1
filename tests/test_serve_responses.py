"""/v1/responses by the official client, and the document of the API."""

from __future__ import annotations

import json

import jsonschema
import openai
import pytest
from scripted_backend import ScriptedBackend
from served import NAME, QUESTION, model_with_template, running

from bitinfer.model import Model

ASKED = QUESTION[0]["content"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with Model.load(model_with_template(tmp_path_factory.mktemp("responses") / "model")) as model:
        yield model


@pytest.fixture(scope="module")
def served(model):
    with running(model) as server:
        yield server


@pytest.fixture(scope="module")
def respond(served):
    with served.client() as client:
        yield lambda **options: client.responses.create(
            **{"model": NAME, "input": ASKED, "temperature": 0} | options
        )


def test_the_text_is_that_of_the_library_whole_and_in_pieces(respond, model):
    expected = model.chat(QUESTION, temperature=0, max_tokens=200)
    whole = respond(max_output_tokens=200)
    assert whole.output_text == expected.text
    assert whole.status == {"stop": "completed", "length": "incomplete"}[expected.finish_reason]
    assert whole.usage.output_tokens == expected.usage.completion_tokens
    events = list(respond(max_output_tokens=200, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == expected.text
    assert events[-1].type == f"response.{whole.status}"
    assert events[-1].response.output_text == expected.text
    cut = respond(max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_instructions_and_earlier_messages_come_first(respond, model):
    messages = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"role": "user", "content": ASKED},
    ]
    plain = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", ASKED)]
    expected = model.chat([{"role": r, "content": c} for r, c in plain], temperature=0)
    assert respond(input=messages, instructions="Be kind.").output_text == expected.text


def test_a_schema_is_kept(respond):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "name": "a", "schema": schema}
    found = respond(text={"format": form}, max_output_tokens=60)
    jsonschema.validate(json.loads(found.output_text), schema)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "name": "f"}], "tool_choice": "required", "input": []},
            "input",
        ),
        ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            "input[0].call_id",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "1"}]}, "input[0].output"),
        ({"input": [{"content": "Hi"}]}, "input[0].role"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"temperature": 1000}, "temperature"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, None),
    ],
)
def test_what_is_not_about_text_is_refused(respond, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        respond(extra_body=options)
    assert caught.value.param == param or param is None


TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
THOUGHT, SAID = "They mean Rome, or do they?", "I look."
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
SCRIPT = f"<think>\n{THOUGHT}\n</think>\n\n{SAID}\n{CALL}"


@pytest.fixture
def scripted(model):
    """A client of a server that says `SCRIPT`, and what the server was asked."""
    backend = ScriptedBackend()
    backend.script += [SCRIPT] * 2
    with running(model, backend=backend) as server, server.client() as client:
        yield client, backend.jobs


def test_a_forced_call_comes_whole_and_in_pieces_as_the_client_types_it(respond):
    options = {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}}
    whole = respond(**options)
    (call,) = whole.output
    assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")
    events = list(respond(**options, stream=True))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments
    (streamed,) = events[-1].response.output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    assert whole.tools[0].name == "weather"


def test_thinking_text_and_calls_are_items_in_their_order(scripted):
    client, _ = scripted
    given = {"model": NAME, "input": ASKED, "tools": [TOOL]}
    whole = client.responses.create(**given)
    thought, said, call = whole.output
    assert [part.text for part in thought.content] == [THOUGHT]
    assert (said.content[0].text, whole.output_text) == (SAID, SAID)
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
    tokens = -(-(SCRIPT.index("</think>") + len("</think>")) // 7)  # 7 characters make one here
    assert whole.usage.output_tokens_details.reasoning_tokens == tokens
    with client.responses.stream(**given) as stream:  # puts the items together by itself
        events = list(stream)
    thinking = [e.delta for e in events if e.type == "response.reasoning_text.delta"]
    assert len(thinking) > 2
    assert "".join(thinking) == THOUGHT
    final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == SAID
    assert final.output[2].arguments == call.arguments
    assert final.usage == whole.usage
    done = [e.item.id for e in events if e.type == "response.output_item.done"]
    assert done == [item.id for item in events[-1].response.output]


def test_what_a_function_returned_goes_on_from_the_earlier_output(scripted, model):
    client, jobs = scripted
    first = client.responses.create(model=NAME, input=ASKED, tools=[TOOL])
    result = {
        "type": "function_call_output",
        "call_id": first.output[2].call_id,
        "output": "Rain.",
    }
    history = [*QUESTION, *(item.to_dict() for item in first.output), result]
    client.responses.create(model=NAME, input=history, tools=[TOOL])
    text = model.tokenizer.decode(jobs[1].prompt_ids, skip_special_tokens=False)
    assert text.endswith(f"<|assistant|>{SAID}weather(Rome)<|user|>Rain.<|assistant|>")


@pytest.mark.parametrize(("effort", "opened"), [("none", False), ("high", True)])
def test_effort_switches_thinking_where_the_template_knows_of_it(scripted, model, effort, opened):
    client, jobs = scripted
    client.responses.create(model=NAME, input=ASKED, reasoning={"effort": effort})
    text = model.tokenizer.decode(jobs[0].prompt_ids, skip_special_tokens=False)
    assert text.rstrip().endswith("<think>") == opened


def test_the_document_describes_every_route_and_fits_real_requests(served):
    status, document = served.ask("GET", "/openapi.json")
    assert status == 200
    for path, entry in document["paths"].items():
        for method in entry:
            status, _ = served.ask(method.upper(), path, {} if method == "post" else None)
            assert status != 405, path
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    schema = {**body["content"]["application/json"]["schema"], "components": document["components"]}
    jsonschema.validate({"messages": QUESTION, "temperature": 0.5, "n": 2}, schema)
    for wrong in ({"messages": QUESTION, "n": 0}, {"messages": "x"}, {"messages": [], "n": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        assert served.ask("POST", "/v1/chat/completions", wrong)[0] == 400
