"""/v1/responses by the official client, and the document of the API."""

from __future__ import annotations

import json

import jsonschema
import openai
import pytest
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
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"temperature": 1000}, "temperature"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, None),
    ],
)
def test_what_is_not_about_text_is_refused(respond, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        respond(extra_body=options)
    assert caught.value.param == param or param is None


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
