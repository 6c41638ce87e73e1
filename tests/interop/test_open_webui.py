"""What Open WebUI asks of a server, in its order: a recipe, after its public source.

It is a web application of its own that takes gigabytes to install, so its requests are sent by the
library that it uses (aiohttp), as ``backend/open_webui/routers/{openai,ollama,tasks}.py`` of
open-webui/open-webui makes them. The prompts are ours, in the form of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from served import NAME, Running, running

KEY = "sk-of-this-server"
FIRST = "What color is the sky?"
TITLE_TASK = (
    '### Task:\nGive the chat a short title.\n### Output:\nJSON: {"title": "..."}\n'
    "### Chat History:\n<chat_history>\nUSER: %s\nASSISTANT: %s\n</chat_history>"
)
USER = {  # told with each request where ENABLE_FORWARD_USER_INFO_HEADERS is set
    "X-OpenWebUI-User-Name": "Ana Mar%C3%ADa",
    "X-OpenWebUI-User-Id": "7f6c",
    "X-OpenWebUI-Chat-Id": "c-1",
}


@pytest.fixture(scope="module")
def locked(talker) -> Iterator[Running]:
    with running(talker, api_key=KEY) as server:
        yield server


class OpenWebUI:
    """Its two kinds of connections to one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url = session, url
        self._headers = {"Authorization": f"Bearer {key}", **USER}

    async def get(self, path: str) -> Any:
        async with self._session.get(self._url + path, headers=self._headers) as answer:
            return await answer.json()

    async def post(self, path: str, payload: dict[str, Any]) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json", **self._headers}
        return await self._session.post(self._url + path, data=json.dumps(payload), headers=headers)

    async def chat(self, messages: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        """A reply as the page shows it, and its usage."""
        payload = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "model": NAME,
            "messages": messages,
            "temperature": 0,
            "max_tokens": 40,
        }
        text, usage = "", None
        answer = await self.post("/v1/chat/completions", payload)
        assert "text/event-stream" in answer.headers["Content-Type"]
        async for line in answer.content:
            data = line.decode().strip().removeprefix("data: ")
            if data and data != "[DONE]":
                chunk = json.loads(data)
                usage = chunk.get("usage") or usage
                text += "".join(c["delta"].get("content") or "" for c in chunk["choices"])
        return text, usage


def asked(server: Running, key: str, steps) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await steps(OpenWebUI(session, server.url, key))

    asyncio.run(run())


def test_a_chat_its_title_and_a_second_message(locked, talker):
    async def steps(page: OpenWebUI) -> None:
        models = (await page.get("/v1/models"))["data"]
        assert [model["id"] for model in models] == [NAME]
        messages = [{"role": "user", "content": FIRST}]
        said, first = await page.chat(messages)
        assert said == talker.chat(messages, temperature=0, max_tokens=40).text
        task = {
            "model": NAME,
            "messages": [{"role": "user", "content": TITLE_TASK % (FIRST, said)}],
            "stream": False,
            "max_completion_tokens": 1000,
        }
        answer = await page.post("/v1/chat/completions", task)
        assert answer.status == 200
        title = (await answer.json())["choices"][0]["message"]["content"]
        assert isinstance(title, str)
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": [{"type": "text", "text": "And the sun?"}]},
        ]
        again, second = await page.chat(messages)
        assert again
        # The title was asked for in between, and the chat is still in memory.
        assert second["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"]

    asked(locked, KEY, steps)


def test_a_prompt_longer_than_the_context_is_told_as_the_page_shows_it(locked):
    async def steps(page: OpenWebUI) -> None:
        task = {"model": NAME, "messages": [{"role": "user", "content": TITLE_TASK * 20}]}
        answer = await page.post("/v1/chat/completions", {**task, "stream": False})
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "context_length_exceeded"

    asked(locked, KEY, steps)


def test_a_wrong_key_is_told(locked):
    async def steps(page: OpenWebUI) -> None:
        assert (await page.get("/v1/models"))["error"]["code"] == "invalid_api_key"
        assert "key" in (await page.get("/api/version"))["error"]

    asked(locked, "wrong", steps)


def test_as_an_ollama_connection(locked, talker):
    async def steps(page: OpenWebUI) -> None:
        version = (await page.get("/api/version"))["version"]
        assert all(part.isdecimal() for part in version.split("."))  # it compares them
        (model,) = (await page.get("/api/tags"))["models"]
        (loaded,) = (await page.get("/api/ps"))["models"]
        assert loaded["name"] == model["name"]
        datetime.fromisoformat(loaded["expires_at"].replace("Z", "+00:00")).timestamp()
        answer = await page.post("/api/show", {"model": model["model"]})
        assert "completion" in (await answer.json())["capabilities"]
        messages = [{"role": "user", "content": FIRST}]
        payload = {
            "model": model["model"],
            "messages": messages,
            "options": {"temperature": 0, "num_predict": 40, "num_ctx": 2048},
            "stream": True,
            "keep_alive": "5m",
        }
        text = ""
        async for line in (await page.post("/api/chat", payload)).content:
            text += json.loads(line).get("message", {}).get("content", "")
        assert text == talker.chat(messages, temperature=0, max_tokens=40).text

    asked(locked, KEY, steps)
