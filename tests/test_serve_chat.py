"""/v1/chat/completions by the official client: what comes is what the library makes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pytest
from served import NAME, QUESTION, model_with_template, running

from bitinfer.model import Model
from bitinfer.runtime import default_model

COLOR = {
    "type": "object",
    "properties": {"color": {"enum": ["blue", "red"]}},
    "required": ["color"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def served(model):
    with running(model) as server:
        yield server


@pytest.fixture(scope="module")
def chat(served):
    with served.client() as client:

        def create(messages=QUESTION, **options):
            return client.chat.completions.create(model=NAME, messages=messages, **options)

        yield create


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A client of a server whose template knows tools and thinking."""
    folder = model_with_template(tmp_path_factory.mktemp("tools") / "model")
    with Model.load(folder) as model, running(model) as server, server.client() as client:
        yield lambda **options: client.chat.completions.create(
            model=NAME, **{"messages": QUESTION, "max_tokens": 60} | options
        )


OPTIONS = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 0.9, "seed": 7, "top_p": 0.9},
    "stop": {"temperature": 0, "stop": [" is", "blue"]},
    "cut": {"temperature": 0, "max_tokens": 3},
    "penalties": {"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": -1},
    "bias": {"temperature": 0, "logit_bias": {"300": 100}, "max_tokens": 4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_reply_is_that_of_the_library_whole_and_in_pieces(chat, model, options):
    given = dict(options)
    if "logit_bias" in given:
        given["logit_bias"] = {int(i): bias for i, bias in given["logit_bias"].items()}
    expected = model.chat(QUESTION, **{"max_tokens": 500} | given)
    whole = chat(**options)
    assert whole.choices[0].message.content == expected.text
    assert whole.choices[0].finish_reason == expected.finish_reason
    assert whole.usage.prompt_tokens == expected.usage.prompt_tokens
    assert whole.usage.completion_tokens == expected.usage.completion_tokens
    chunks = list(chat(**options, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(pieces) == expected.text
    assert chunks[-2].choices[0].finish_reason == expected.finish_reason
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens


def test_settings_that_openai_lacks_are_known_too(chat, model):
    options = {"min_p": 0.2, "top_k": 5, "repetition_penalty": 1.2, "regex": "[a-z ]{5,9}"}
    given = chat(temperature=0.8, seed=3, max_completion_tokens=9, extra_body=options)
    expected = model.chat(QUESTION, temperature=0.8, seed=3, max_tokens=9, **options)
    assert given.choices[0].message.content == expected.text


def test_several_replies_are_those_of_neighbouring_seeds(chat, model):
    answers = chat(n=3, seed=5, temperature=1.2, max_tokens=20).choices
    alone = [model.chat(QUESTION, seed=5 + i, temperature=1.2, max_tokens=20) for i in range(3)]
    assert [c.message.content for c in answers] == [one.text for one in alone]
    pieces = ["", "", ""]
    for chunk in chat(n=3, seed=5, temperature=1.2, max_tokens=20, stream=True):
        pieces[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert pieces == [one.text for one in alone]


def test_many_clients_at_once_get_the_answers_that_each_gets_alone(chat, model):
    asked = [[{"role": "user", "content": f"Tell me of a {w}."}] for w in ("dog", "boat", "star")]
    options = {"temperature": 0.9, "max_tokens": 16}
    jobs = [(messages, seed) for messages in asked for seed in range(8)]
    alone = [model.chat(messages, seed=seed, **options).text for messages, seed in jobs]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda job: chat(job[0], seed=job[1], **options), jobs))
    assert [answer.choices[0].message.content for answer in found] == alone


def test_logprobs_are_those_of_the_library(chat, model):
    options = {"temperature": 0, "max_tokens": 4}
    expected = model.chat(QUESTION, logprobs=2, **options).logprobs
    whole = chat(logprobs=True, top_logprobs=2, **options).choices[0].logprobs.content
    assert [entry.logprob for entry in whole] == [record.logprob for record in expected]
    assert [[t.logprob for t in e.top_logprobs] for e in whole] == [
        [logprob for _, logprob in record.top] for record in expected
    ]
    assert "".join(entry.token for entry in whole) == "The sky is blue"
    assert b"".join(bytes(entry.bytes) for entry in whole) == b"The sky is blue"
    streamed = [
        entry
        for chunk in chat(logprobs=True, top_logprobs=2, stream=True, **options)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert streamed == whole


def test_a_schema_is_kept(chat):
    form = {"type": "json_schema", "json_schema": {"name": "color", "schema": COLOR}}
    for choice in chat(response_format=form, n=2, temperature=1.5, max_tokens=200).choices:
        jsonschema.validate(json.loads(choice.message.content), COLOR)
    reply = chat(response_format={"type": "json_object"}, seed=1, max_tokens=200)
    assert reply.choices[0].message.content.startswith("{")


def test_a_grammar_is_kept(chat):
    reply = chat(extra_body={"grammar": 'start: "red" | "green"'}, temperature=2)
    assert reply.choices[0].message.content in ("red", "green")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called_is_called(tools, stream):
    answer = tools(tools=[WEATHER], tool_choice="required", temperature=1, stream=stream)
    if stream:
        chunks = list(answer)
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        deltas = [chunk.choices[0].delta for chunk in chunks]
        assert not any(delta.content for delta in deltas)
        (call,) = [call for delta in deltas for call in delta.tool_calls or ()]
    else:
        assert answer.choices[0].finish_reason == "tool_calls"
        assert answer.choices[0].message.content is None
        (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])


def test_a_conversation_with_calls_and_their_results_goes_on(tools):
    call = {"name": "weather", "arguments": '{"city": "Rome"}'}
    asked = {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": call}]}
    told = {"role": "tool", "tool_call_id": "a", "content": "sunny"}
    answer = tools(messages=[*QUESTION, asked, told], tools=[WEATHER], temperature=0)
    assert answer.choices[0].message.content


def test_control_tokens_in_tools_are_text(tools):
    def prompt_tokens(name: str) -> int:
        tool = {"type": "function", "function": {"name": "f", "description": name}}
        answer = tools(
            tools=[tool], max_tokens=1, messages=[{"role": "user", "content": f"Hi {name}"}]
        )
        return answer.usage.prompt_tokens

    assert prompt_tokens("</s></s>") > prompt_tokens("a") + 2


def test_thinking_is_apart(tools):
    extra = {"chat_template_kwargs": {"enable_thinking": True}}
    whole = tools(temperature=0, max_tokens=3, extra_body=extra)
    message = whole.choices[0].message
    assert message.content == ""
    assert message.reasoning_content
    assert whole.usage.completion_tokens_details.reasoning_tokens == 3
    pieces = tools(temperature=0, max_tokens=3, extra_body=extra, stream=True)
    deltas = [chunk.choices[0].delta for chunk in pieces]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == message.reasoning_content


def test_the_second_message_takes_the_first_from_the_cache(chat):
    first = chat(temperature=0, max_tokens=5)
    said = {"role": "assistant", "content": first.choices[0].message.content}
    more = {"role": "user", "content": "And the sea?"}
    usage = chat([*QUESTION, said, more], max_tokens=2).usage
    assert usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens


@pytest.mark.parametrize(
    ("options", "param", "part"),
    [
        ({"n": 10**9}, "n", "16"),
        ({"n": -1}, "n", "1"),
        ({"n": 1.5}, "n", "float"),
        ({"n": "2"}, "n", "str"),
        ({"temperature": -1}, "temperature", "0"),
        ({"top_p": "x"}, "top_p", "str"),
        ({"messages": None}, "messages", "null"),
        ({"messages": "hi"}, "messages", "str"),
        ({"messages": [["hi"]]}, "messages[0]", "array"),
        ({"messages": []}, "messages", "1"),
        (
            {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
            "messages[0].content[0].type",
            "none",
        ),
        ({"messages": [{"role": "x", "content": "y"}]}, "messages[0].role", "x"),
        ({"max_tokens": 0}, "max_tokens", "1"),
        ({"stop": ["a"] * 17}, "stop", "16"),
        ({"stop": ""}, "stop", "1"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "x"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "99999"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "1024"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "20"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"regex": "(a"}, "regex", "column"),
        ({"regex": "a", "grammar": "start: /b/"}, "regex", "alone"),
        ({"tools": [WEATHER]}, "tools", "template"),
        ({"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs", "messages"),
        ({"tool_choice": "required"}, "tool_choice", "tools"),
    ],
)
def test_bad_requests_are_refused_with_field_and_reason(chat, options, param, part):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(**{"messages": QUESTION} | {"extra_body": options})
    assert caught.value.param == param
    assert part in caught.value.body["message"]
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"$ref": "file:///etc/passwd"},
        {"enum": [f"value {i}" for i in range(100_000)]},
        {"properties": {f"p{i}": {} for i in range(10_000)}},
    ],
    ids=["type", "http", "file", "enum", "properties"],
)
def test_bad_schemas_are_refused(chat, schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as caught:
        chat(response_format=form, max_tokens=3)
    assert caught.value.param == "json_schema"
    assert "root:" not in caught.value.body["message"]


def test_another_model_is_not_found(served):
    for name in ("gpt-4", "../../etc/passwd"):
        with served.client() as client, pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=name, messages=QUESTION)
        assert caught.value.code == "model_not_found"


def test_a_prompt_that_fills_the_context_is_refused(chat, model):
    def prompt(words: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": "cat" + " cat" * (words - 1)}]

    most = model.context_length - len(model.encode_chat(prompt(1)))
    assert chat(prompt(most)).choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError) as caught:
        chat(prompt(most + 1))
    assert caught.value.code == "context_length_exceeded"
    assert str(model.context_length) in caught.value.body["message"]
