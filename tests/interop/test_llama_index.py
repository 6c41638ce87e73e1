"""LlamaIndex's OpenAI-like class: completions, chats, streams and tools of a running server."""

from typing import Literal

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from served import NAME, QUESTION

ASKED = QUESTION[0]["content"]
LIMITS = {"temperature": 0, "max_tokens": 40}


@pytest.fixture(scope="module")
def make(server):
    def llm(**options) -> OpenAILike:
        given = {"model": NAME, "context_window": 1024, "max_retries": 0, **LIMITS}
        return OpenAILike(api_base=f"{server.url}/v1", api_key="none", **given | options)

    return llm


def test_completions_are_the_library_s(make, talker):
    expected = talker.generate("Once upon a time", **LIMITS).text
    llm = make(is_chat_model=False)
    assert llm.complete("Once upon a time").text == expected
    assert "".join(piece.delta for piece in llm.stream_complete("Once upon a time")) == expected


def test_chats_are_the_library_s(make, talker):
    expected = talker.chat(QUESTION, **LIMITS).text
    llm = make(is_chat_model=True)
    messages = [ChatMessage(role="user", content=ASKED)]
    assert llm.chat(messages).message.content == expected
    assert "".join(piece.delta for piece in llm.stream_chat(messages)) == expected
    assert llm.complete(ASKED).text == expected


def test_a_tool_is_called(make):
    def weather(city: Literal["Paris", "Rome"]) -> str:
        """Tell the weather in a city."""
        return f"It rains in {city}."

    llm = make(is_chat_model=True, is_function_calling_model=True)
    found = llm.predict_and_call([FunctionTool.from_defaults(weather)], "Rome?", tool_required=True)
    assert found.response in ("It rains in Paris.", "It rains in Rome.")
