"""/v1/embeddings by the official client: the bits of the library."""

from __future__ import annotations

import numpy as np
import openai
import pytest
from served import NAME, running

from bitinfer.model import Model
from bitinfer.runtime import default_model

pytestmark = pytest.mark.filterwarnings("ignore:.*not trained")
TEXTS = ["The sky is blue.", "A dog"]


@pytest.fixture(scope="module")
def model():
    with Model.load(default_model()) as model:
        yield model


@pytest.fixture(scope="module")
def embed(model):
    with running(model) as server, server.client() as client:
        yield lambda given, **options: client.embeddings.create(model=NAME, input=given, **options)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_are_those_of_the_library(embed, model, form):
    found = embed(TEXTS, encoding_format=form)
    vectors = [entry.embedding for entry in found.data]
    if form == "base64":
        assert all(isinstance(vector, str) for vector in vectors)
        vectors = [entry.embedding for entry in embed(TEXTS).data]  # the client decodes it
    assert np.array_equal(np.array(vectors, np.float32), model.embed(TEXTS))
    assert found.usage.prompt_tokens == sum(len(model.tokenizer.encode_whole(t)) for t in TEXTS)
    assert embed(TEXTS[1]).data[0].embedding == list(map(float, vectors[1]))


@pytest.mark.parametrize(
    ("given", "options", "param"),
    [
        ([], {}, "input"),
        (["a"] * 257, {}, "input"),
        ([[1, 2]], {}, "input[0]"),
        ("cat " * 2000, {}, "input"),
        ("a", {"dimensions": 7}, "dimensions"),
    ],
)
def test_bad_input_is_refused(embed, given, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        embed(given, **options)
    assert caught.value.param == param
