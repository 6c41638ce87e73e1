"""Ollama's API: what its clients send and expect; the text is that of the library."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from served import NAME, QUESTION, model_with_template, running

from bitinfer.model import Model

CHAT = {"model": f"{NAME}:latest", "messages": QUESTION, "stream": False}
GREEDY = {"temperature": 0, "num_predict": 20, "num_ctx": 4096}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with Model.load(model_with_template(tmp_path_factory.mktemp("ollama") / "model")) as model:
        yield model


@pytest.fixture(scope="module")
def ask(model):
    with running(model) as server:
        yield lambda path, body=None: server.ask("POST" if body else "GET", path, body)


def lines(text: str) -> list[dict]:
    """The objects of an answer that came in chunks."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_chat_whole_and_in_lines(ask, model):
    expected = model.chat(QUESTION, temperature=0, max_tokens=20)
    status, whole = ask("/api/chat", {**CHAT, "options": GREEDY})
    assert (status, whole["message"]) == (200, {"role": "assistant", "content": expected.text})
    assert (whole["done"], whole["done_reason"]) == (True, expected.finish_reason)
    assert whole["eval_count"] == expected.usage.completion_tokens
    assert whole["prompt_eval_count"] == expected.usage.prompt_tokens
    status, text = ask("/api/chat", {**CHAT, "stream": True, "options": GREEDY})
    *pieces, last = lines(text)
    assert "".join(piece["message"]["content"] for piece in pieces) == expected.text
    assert [piece["done"] for piece in pieces] == [False] * len(pieces)
    assert last["eval_count"] == whole["eval_count"]
    datetime.fromisoformat(last["created_at"].replace("Z", "+00:00"))


def test_generate_asks_through_the_template_and_streams_by_default(ask, model):
    system = {"role": "system", "content": "Be brief."}
    expected = model.chat([system, *QUESTION], temperature=0, max_tokens=20).text
    prompt = {"prompt": QUESTION[0]["content"], "system": "Be brief."}
    status, text = ask("/api/generate", {"model": NAME, **prompt, "options": GREEDY})
    assert status == 200
    assert "".join(line["response"] for line in lines(text)) == expected


def test_settings_have_ollama_s_names(ask, model):
    options = {"repeat_penalty": 1.3, "repeat_last_n": 8, "seed": 3, "temperature": 0.9}
    expected = model.chat(
        QUESTION,
        repetition_penalty=1.3,
        repetition_window=8,
        seed=3,
        temperature=0.9,
        max_tokens=20,
    )
    _, whole = ask("/api/chat", {**CHAT, "options": {**options, "num_predict": 20}})
    assert whole["message"]["content"] == expected.text


def test_formats_and_thinking(ask):
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    schema["additionalProperties"] = False
    _, whole = ask("/api/chat", {**CHAT, "format": schema, "options": {"num_predict": 60}})
    assert json.loads(whole["message"]["content"]) == {"a": 1}
    _, whole = ask("/api/chat", {**CHAT, "think": True, "options": GREEDY})
    assert whole["message"]["thinking"]
    assert whole["message"]["content"] == ""


def test_show_and_ps_tell_what_the_model_is(ask, model):
    status, found = ask("/api/show", {"name": NAME})
    assert status == 200
    assert found["capabilities"] == ["completion", "tools", "thinking"]
    assert found["template"] == model.chat_template.source
    family = found["model_info"]["general.architecture"]
    assert found["model_info"][f"{family}.context_length"] == model.context_length
    status, found = ask("/api/show", {"model": "llama3"})
    assert (status, list(found)) == (404, ["error"])
    (one,) = ask("/api/ps")[1]["models"]
    assert (one["model"], one["context_length"]) == (f"{NAME}:latest", model.context_length)
    assert datetime.fromisoformat(one["expires_at"].replace("Z", "+00:00")).timestamp() > 0


def test_tags_list_the_model(ask):
    status, found = ask("/api/tags")
    assert status == 200
    assert [model["name"] for model in found["models"]] == [f"{NAME}:latest"]
    assert found["models"][0]["size"] > 1_000_000
    assert "version" in ask("/api/version")[1]


@pytest.mark.parametrize(
    ("path", "change", "status", "part"),
    [
        ("/api/chat", {"model": "llama3"}, 404, "llama3"),
        ("/api/chat", {"messages": []}, 400, "messages"),
        ("/api/chat", {"options": {"temperature": -1}}, 400, "temperature"),
        ("/api/chat", {"messages": [{"role": "user", "images": ["x"]}]}, 400, "images"),
        ("/api/generate", {"prompt": None}, 400, "prompt"),
        ("/api/pull", {}, 404, "/api/pull"),
    ],
)
def test_errors_are_a_text(ask, path, change, status, part):
    found, reply = ask(path, {**CHAT, **change})
    assert found == status
    assert set(reply) == {"error"}
    assert part in reply["error"]
