"""Perplexity and choices: against double precision over the NumPy reference's logits."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoints import TINY, tiny_checkpoint
from hypothesis import given, strategies as st

import bitinfer
from bitinfer.errors import ContextLengthError, DataError, PromptError, TokenizerError
from bitinfer.evaluate import (
    Choice,
    Question,
    accuracy,
    choose,
    confusion,
    document_perplexity,
    perplexity,
    scoring,
)
from bitinfer.evaluate.perplexity import windows
from bitinfer.evaluate.scoring import Span, score
from bitinfer.loading import load_folder
from bitinfer.model import Model
from bitinfer.reference import ReferenceDecoder

CONTEXT = 32
TEXT = "Once upon a time, there was a little girl named Lily. She found a red ball."
BOS, EOS = 1, 2
# exp is a float32 in losses: relative error 2^-24, and as much of z - z_max, which is below 64.
LOSS_ERROR = 2**-23 + 64 * 2**-24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with the embedded one's tokenizer and chat template."""
    config = {**TINY, "vocab_size": 4096, "max_position_embeddings": CONTEXT}
    folder = tiny_checkpoint(tmp_path_factory.mktemp("evaluate") / "tiny", config)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (bitinfer.default_model() / name).exists():
            shutil.copy(bitinfer.default_model() / name, folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder, num_threads=2)


@pytest.fixture(scope="module")
def reference(folder: Path) -> ReferenceDecoder:
    loaded = load_folder(folder, packing="i2", head="int8", weights="auto", progress=None)
    return ReferenceDecoder({**loaded.spec, "head": "int8"}, loaded.weights)


def loss(reference: ReferenceDecoder, context: Sequence[int], token: int) -> float:
    """``-log p`` of a token after ``context``, in double."""
    z = reference.logits(np.array(context, np.int32))[-1].astype(np.float64)
    return float(np.log(np.exp(z - z.max()).sum()) + z.max() - z[token])


@given(st.integers(1, 80), st.integers(1, 20), st.data())
def test_windows_count_each_token_once_and_hold_what_they_promise(length, window, data):
    stride = data.draw(st.integers(1, window))
    ids, scored = list(range(length)), []
    spans = list(windows(ids, window, stride))
    for span in spans:
        assert len(span.token_ids) - 1 <= window  # tokens that are read: all but the last
        assert span.start >= 1
        begins_the_text = span.token_ids[0] == 0
        assert begins_the_text or span.start >= window - stride + 1
        scored += span.token_ids[span.start :]
    assert scored == ids[1:]
    if spans and length > window:
        assert all(len(span.token_ids) == window + 1 for span in spans)


@pytest.mark.parametrize(("window", "stride"), [(8, 3), (8, 8), (5, 1), (CONTEXT, None)])
def test_perplexity_is_that_of_the_reference(model, reference, window, stride):
    ids = [BOS, *model.tokenizer.encode(TEXT)]
    assert len(ids) < CONTEXT  # so the last window holds all
    found = perplexity(model, TEXT, window=window, stride=stride)
    step, expected = stride or window // 2, []
    for at in range(1, len(ids)):
        moves = -(-max(0, at - window) // step)  # of the window, until it holds this token
        end = min(window + 1 + moves * step, len(ids))
        expected.append(loss(reference, ids[max(0, end - window - 1) : at], ids[at]))
    assert found.nats_per_token == pytest.approx(
        math.fsum(expected) / len(expected), abs=LOSS_ERROR
    )
    assert found.perplexity == pytest.approx(math.exp(found.nats_per_token), rel=1e-12)
    assert (found.tokens, found.texts) == (len(ids) - 1, 1)
    assert found.bytes == len(TEXT.encode())
    assert found.nats_per_byte * found.bytes == pytest.approx(found.nats_per_token * found.tokens)


def test_spans_are_scored_the_same_alone_together_and_in_pieces(model, monkeypatch):
    rng = np.random.default_rng(0)
    prefixes = [rng.integers(4096, size=n).tolist() for n in (1, 9, 20)]
    spans = [
        Span([*prefix, *rng.integers(4096, size=n).tolist()], len(prefix))
        for prefix in prefixes
        for n in (1, 2, 11)
    ]
    engine = model.engine
    together = score(engine, spans)
    alone = [score(engine, [span])[0] for span in spans]
    monkeypatch.setattr(scoring, "_LOGITS_BYTES", 4 * 4096 * 3)  # three rows at a time
    pieces = score(engine, spans)
    monkeypatch.setattr(scoring, "_BATCH_TOKENS", 30)
    monkeypatch.setattr(scoring, "_BATCH_SPANS", 2)
    shown: list[tuple[int, int]] = []
    batches = score(engine, spans, lambda *done: shown.append(done))
    for others in (alone, pieces, batches):
        for one, other in zip(together, others, strict=True):
            assert one.losses.tobytes() == other.losses.tobytes()
            assert one.greedy == other.greedy
    total = sum(len(span.token_ids) - 1 for span in spans)
    assert shown == sorted(shown)
    assert shown[-1] == (total, total)


def test_greedy_is_what_greedy_decoding_says(model):
    prompt = model.tokenizer.encode("Once upon a time", add_special_tokens=True)
    reply = list(model.generate(prompt, temperature=0, max_tokens=6).token_ids)
    right, wrong = score(
        model.engine,
        [Span([*prompt, *reply], len(prompt)), Span([*prompt, *reply[:-1], 7], len(prompt))],
    )
    assert right.greedy
    assert not wrong.greedy


def test_documents_are_read_alone_and_their_end_counts(model):
    parts = [TEXT, "Hi!</s><|user|>And you?"]
    found = document_perplexity(model, [f"{part}</s>" for part in parts])
    streams = [model.tokenizer.encode(f"<s>{part}</s>", parse_special=True) for part in parts]
    assert streams[1].count(EOS) == 2
    scores = score(model.engine, [Span(ids, 1) for ids in streams])
    assert found.nats == pytest.approx(-sum(one.logprob for one in scores), rel=1e-12)
    assert found.tokens == sum(len(ids) - 1 for ids in streams)
    assert found.bytes == len(TEXT) + len("Hi!And you?")
    assert found.texts == 2
    assert document_perplexity(model, parts) == found  # a document ends even without a mark


def test_marks_in_a_plain_text_are_text(model):
    found = perplexity(model, "a</s>b")
    assert found.tokens == len(model.tokenizer.encode("a</s>b")) > 3
    assert found.bytes == 6


def test_what_cannot_be_read_is_refused(model):
    with pytest.raises(DataError, match="expected at least one character of text, got none"):
        perplexity(model, "")
    with pytest.raises(ValueError, match="window: expected 1 to 32, the context, got 33"):
        perplexity(model, TEXT, window=33)
    with pytest.raises(ValueError, match="stride: expected 1 to 8, the window, got 9"):
        perplexity(model, TEXT, window=8, stride=9)
    with pytest.raises(PromptError, match="expected whole numbers from 0 to 4095"):
        score(model.engine, [Span([1, 5000, 2], 1)])


QUESTIONS = [
    Question("The sky is", ("blue", "green and red"), 0),
    Question("", ("Once", "upon a time"), 1),
    Question("A cat says", ("meow", "moo", "nothing at all"), 2),
]


def test_choices_are_scored_as_the_reference_does(model, reference):
    found = choose(model, QUESTIONS)
    for question, one in zip(QUESTIONS, found, strict=True):
        prompt = [BOS, *model.tokenizer.encode(question.prompt)]
        for choice, logprob, size in zip(question.choices, one.logprobs, one.bytes, strict=True):
            ids = [BOS, *model.tokenizer.encode(f"{question.prompt} {choice}")]
            assert ids[: len(prompt)] == prompt
            expected = -sum(
                loss(reference, ids[:at], ids[at]) for at in range(len(prompt), len(ids))
            )
            assert logprob == pytest.approx(expected, abs=len(ids) * LOSS_ERROR)
            assert size == len(choice)
        assert one.likeliest == np.argmax(one.logprobs)
        sizes = [len(choice) for choice in question.choices]
        assert one.likeliest_by_length == np.argmax(one.logprobs / sizes)


def test_a_token_across_prompt_and_choice_counts(model):
    tokenizer = model.tokenizer
    prompt, choice = "Once upon a t", "ime"
    alone = tokenizer.encode(prompt, add_special_tokens=True)
    whole = tokenizer.encode(prompt + choice, add_special_tokens=True)
    assert whole[: len(alone)] != alone
    question = Question(prompt, (choice, "x"), 0)
    (found,) = choose(model, [question], separator="")
    common = len(alone) - 1
    assert whole[:common] == alone[:common]
    (expected,) = score(model.engine, [Span(whole, common)])
    assert found.logprobs[0] == expected.logprob


def test_a_reply_in_a_chat_comes_after_the_template(model):
    question = Question("Hi", ("Yes", "No"), 0)
    (found,) = choose(model, [question], chat=True)
    context = model.encode_chat([{"role": "user", "content": "Hi"}])
    for choice, logprob in zip(question.choices, found.logprobs, strict=True):
        ids = [*context, *model.tokenizer.encode(choice)]
        assert logprob == score(model.engine, [Span(ids, len(context))])[0].logprob


def test_a_question_that_does_not_fit_is_named(model):
    questions = [QUESTIONS[0], Question("The dog ran. " * 20, ("a", "b"), 0, "q.jsonl, line 2")]
    with pytest.raises(ContextLengthError, match=r"^q\.jsonl, line 2: expected at most 32 tokens"):
        choose(model, questions)
    with pytest.raises(DataError, match=r"^question: .*got an empty one"):
        choose(model, [Question("a", ("b", ""), 0)])


def test_a_model_without_a_tokenizer_says_so(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "tokenizer.json").unlink()
    with Model.load(bare) as model, pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        perplexity(model, TEXT)


def test_accuracy_and_confusion_are_counts():
    questions = [Question("", ("a", "bb"), answer) for answer in (0, 0, 1, 1, 1)]
    logprobs = [
        (-1, -3),
        (-3, -1),
        (-3, -4),
        (-4, -3),
        (-2, -3),
    ]  # by length bb wins from -2 a byte
    found = [Choice(np.array(pair, float), np.array([1, 2])) for pair in logprobs]
    right = accuracy(questions, found)
    assert (right.questions, right.correct, right.correct_by_length) == (5, 2, 4)
    assert (right.accuracy, right.accuracy_by_length, right.chance) == (0.4, 0.8, 0.5)
    assert right.standard_error(0.4) == pytest.approx(math.sqrt(0.4 * 0.6 / 5))
    assert confusion(questions, found).tolist() == [[1, 1], [2, 1]]
