"""/v1/completions by the official client: what comes is what the library makes."""

from __future__ import annotations

import openai
import pytest
from served import NAME, running

from bitinfer.model import Model
from bitinfer.runtime import default_model

TEXT = "Once upon a time"


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def complete(model):
    with running(model) as server, server.client() as client:

        def create(prompt=TEXT, **options):
            return client.completions.create(model=NAME, prompt=prompt, **options)

        yield create


def test_texts_and_token_ids_are_continued_as_by_the_library(complete, model):
    ids = model.tokenizer.encode(TEXT, add_special_tokens=True)
    expected = model.generate(TEXT, temperature=0, max_tokens=16)
    for prompt in (TEXT, ids, [TEXT], [ids]):
        found = complete(prompt, temperature=0)
        assert found.choices[0].text == expected.text
        assert found.choices[0].finish_reason == "length"
        assert found.usage.prompt_tokens == len(ids)


def test_several_prompts_have_several_replies_each(complete, model):
    prompts = [TEXT, "The dog", "A cat sat"]
    options = {"temperature": 1.0, "seed": 4, "max_tokens": 9}
    found = complete(prompts, n=2, **options)
    expected = [done for p in prompts for done in model.generate_n(p, 2, **options)]
    assert [choice.text for choice in found.choices] == [done.text for done in expected]
    assert [choice.index for choice in found.choices] == list(range(6))
    assert found.usage.prompt_tokens == sum(done.usage.prompt_tokens for done in expected[::2])
    streamed = [""] * 6
    for chunk in complete(prompts, n=2, stream=True, **options):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [done.text for done in expected]


def test_logprobs_whole_and_in_pieces(complete, model):
    options = {"temperature": 0, "max_tokens": 6, "logprobs": 2}
    expected = model.generate(TEXT, **options)
    found = complete(**options).choices[0].logprobs
    assert found.token_logprobs == [record.logprob for record in expected.logprobs]
    assert "".join(found.tokens) == expected.text
    for offset, token in zip(found.text_offset, found.tokens, strict=True):
        assert expected.text[offset:].startswith(token)
    assert all(len(top) == 2 for top in found.top_logprobs)
    chunks = [c.choices[0].logprobs for c in complete(stream=True, **options)]
    assert sum((c.text_offset for c in chunks if c), []) == found.text_offset  # noqa: RUF017
    assert sum((c.tokens for c in chunks if c), []) == found.tokens  # noqa: RUF017


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [10**8]}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": "cat " * 2000}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": ["a"] * 4, "n": 5}, "n"),
    ],
)
def test_bad_prompts_are_refused(complete, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(**options)
    assert caught.value.param == param
