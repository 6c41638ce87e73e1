"""Drafts through ``Model``: every option of a generation means the same with them as without."""

from __future__ import annotations

import json
import shutil

import pytest

import bitinfer
from bitinfer.errors import CheckpointError, TokenizerError
from bitinfer.model import Model
from bitinfer.speculation import Pace

STORY = "Once upon a time, there was a red ball. The red ball was big. Tom saw the red ball. "
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}}}
OPTIONS = {
    "greedy": {"temperature": 0.0},
    "model's defaults": {"seed": 3},
    "penalties": {"seed": 4, "repetition_penalty": 1.3, "dry_multiplier": 0.5},
    "stop string": {"temperature": 0.0, "stop": "ball."},
    "logprobs": {"seed": 5, "logprobs": 3},
    "regex": {"seed": 6, "regex": "(The red ball was [a-z]+\\. )+"},
    "json": {"seed": 7, "json_schema": {**SCHEMA, "required": ["name"]}},
    "processor": {"seed": 8, "logits_processor": lambda ids, logits: logits - ids[-1] % 2 * logits},
}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Draft at every chance, however long that takes."""
    monkeypatch.setattr(Pace, "length", lambda self, outlook, most: min(5, most))
    monkeypatch.setattr(Pace, "learn", lambda self, outlook, drafted, accepted: None)
    monkeypatch.setattr(Pace, "time", lambda self, drafted, seconds: None)


@pytest.fixture(scope="module")
def model():
    with Model.load("tales-14m", num_threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def with_draft():
    with Model.load("tales-14m", num_threads=1, draft_model="tales-14m") as loaded:
        yield loaded


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded model whose files a test may change."""
    return shutil.copytree(bitinfer.default_model(), tmp_path / "model")


def told(done) -> tuple:
    return done.text, done.token_ids, done.finish_reason, done.logprobs


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_completion_is_that_of_plain_decoding(model, with_draft, options) -> None:
    if options.keys() & {"regex", "json_schema"}:
        pytest.importorskip("llguidance")
    plain = model.generate(STORY, max_tokens=40, speculate="off", **options)
    assert (plain.usage.drafted_tokens, plain.usage.accepted_tokens) == (0, 0)
    by_ngram = model.generate(STORY, max_tokens=40, speculate="ngram", **options)
    by_model = with_draft.generate(STORY, max_tokens=40, **options)
    assert told(plain) == told(by_ngram) == told(by_model)
    assert by_model.usage.drafted_tokens >= by_model.usage.accepted_tokens > 0


def test_the_draft_model_is_used_only_on_auto(with_draft) -> None:
    text, options = "A", {"max_tokens": 12, "temperature": 0.0}
    by_model = with_draft.generate(text, **options).usage
    assert by_model.drafted_tokens == by_model.accepted_tokens > 5
    assert with_draft.generate(text, speculate="ngram", **options).usage.drafted_tokens == 0
    assert with_draft.generate(text, speculate="off", **options).usage.drafted_tokens == 0


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 5, 8])
def test_a_stream_closed_amid_a_draft_leaves_a_good_cache(model, pieces) -> None:
    likeliest = {"temperature": 0, "repetition_penalty": 1}
    with model.stream(STORY, speculate="ngram", **likeliest) as stream:
        for _, _ in zip(range(pieces), stream, strict=False):
            pass
    ids = [*model.tokenizer.encode(STORY, add_special_tokens=True), *stream.completion.token_ids]
    done = model.generate([*ids, 50, 60], max_tokens=8, speculate="off", **likeliest)
    assert done.usage.cached_tokens >= len(ids) - 1
    expected = model.logits([*ids, 50, 60, *done.token_ids])
    assert done.token_ids == tuple(expected[len(ids) + 1 : -1].argmax(axis=1))


def test_conversation_is_that_of_plain_decoding(model, with_draft) -> None:
    def talk(model, speculate) -> list[str]:
        turns: list[dict[str, str]] = []
        for question in ("What color is the sky?", "What do birds do?"):
            turns.append({"role": "user", "content": question})
            said = model.chat(turns, seed=1, speculate=speculate).text
            turns.append({"role": "assistant", "content": said})
        return [turn["content"] for turn in turns]

    assert talk(model, "off") == talk(model, "ngram") == talk(with_draft, "auto")


def test_several_completions_at_once_are_those_of_one_by_one(with_draft) -> None:
    many = with_draft.generate_n(STORY, 2, seed=5, max_tokens=20)
    alone = [with_draft.generate(STORY, seed=5 + i, max_tokens=20) for i in range(2)]
    assert list(map(told, many)) == list(map(told, alone))
    assert many[0].usage.drafted_tokens == 0


def test_whole_context_is_used(folder) -> None:
    with Model.load(folder, num_threads=1, context_length=60, draft_model=folder) as short:
        endless = {"logit_bias": dict.fromkeys(short.tokenizer.eos_token_ids, float("-inf"))}
        options = {"temperature": 0, "max_tokens": 200, **endless}
        made = [short.generate(STORY, speculate=s, **options) for s in ("off", "ngram", "auto")]
    assert made[0].usage.prompt_tokens + len(made[0].token_ids) == 61  # the last needs no place
    assert made[0].token_ids == made[1].token_ids == made[2].token_ids


def test_draft_model_of_another_vocabulary_is_refused_by_both_names(folder) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    one, other = (next(t for t, i in vocab.items() if i == number) for number in (300, 301))
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(content))
    with pytest.raises(TokenizerError) as caught:
        Model.load("tales-14m", draft_model=folder)
    text = str(caught.value)
    assert text.startswith(
        "draft model model: expected the vocabulary of tales-14m (4096 tokens, 300"
    )
    assert all(part in text for part in (repr(one), repr(other), "take a draft model"))
    assert "\n" not in text


def test_draft_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="model 'nowhere': expected a model folder"):
        Model.load("tales-14m", draft_model="nowhere")


def test_unknown_way_of_drafting_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="speculate: expected auto, off, ngram, got 'on'"):
        Model.load("tales-14m", speculate="on")


def test_closing_a_model_closes_its_draft_model(folder) -> None:
    model = Model.load(folder, draft_model=folder)
    draft = model._draft_model
    model.close()
    assert repr(draft).endswith("closed>")
