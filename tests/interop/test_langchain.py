"""LangChain's OpenAI class: texts, streams, tools and structured output of a running server."""

from __future__ import annotations

import asyncio
from typing import Literal

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from served import NAME, QUESTION

ASKED = QUESTION[0]["content"]


class Weather(BaseModel):
    """The weather in a city."""

    city: Literal["Paris", "Rome"]
    rain: bool


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tell the weather in a city."""
    return f"It rains in {city}."


@pytest.fixture(scope="module")
def make(server):
    def chat(**options) -> ChatOpenAI:
        given = {"model": NAME, "temperature": 0, "max_tokens": 150, "max_retries": 0}
        return ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", **given | options)

    return chat


@pytest.fixture(scope="module")
def expected(talker) -> str:
    return talker.chat(QUESTION, temperature=0, max_tokens=150).text


@pytest.mark.parametrize("responses", [False, True])
def test_whole_and_streamed_texts_are_the_library_s(make, expected, responses):
    chat = make(use_responses_api=responses)
    whole = chat.invoke(ASKED)
    assert whole.text == expected
    assert whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in chat.stream(ASKED)) == expected

    async def streamed() -> str:
        return "".join([chunk.text async for chunk in chat.astream(ASKED)])

    assert asyncio.run(streamed()) == expected
    assert [reply.text for reply in chat.batch([ASKED] * 3)] == [expected] * 3


@pytest.mark.parametrize("responses", [False, True])
def test_a_tool_is_called_and_its_answer_goes_on(make, responses):
    chat = make(use_responses_api=responses)
    called = chat.bind_tools([weather], tool_choice="weather").invoke("How is Rome?")
    (call,) = called.tool_calls
    assert call["name"] == "weather"
    told = weather.invoke(call)
    assert isinstance(told, ToolMessage)
    assert told.content == f"It rains in {call['args']['city']}."
    messages = [HumanMessage("How is Rome?"), called, told]
    final = chat.bind_tools([weather]).invoke(messages)
    assert isinstance(final, AIMessage)
    assert final.usage_metadata["input_tokens"] > called.usage_metadata["input_tokens"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_object_of_its_class(make, method):
    found = make().with_structured_output(Weather, method=method).invoke("How is Rome?")
    assert isinstance(found, Weather)


def test_an_error_of_the_server_is_the_client_s(make):
    with pytest.raises(openai.NotFoundError, match="model: expected tales-14m"):
        make(model="gpt-4o").invoke(ASKED)
