"""``Model.embed``: hidden states of the text, pooled; the same alone and in a batch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from embedding_models import BOS, EOS, sentence_transformers_files, write_encoder

from bitinfer.convert import convert
from bitinfer.errors import ContextLengthError, PromptError, TokenizerError
from bitinfer.model import Model

TEXTS = ["A cat sat.", "The dog ran away from the big bear.", "sun", "A cat sat."]
MEAN = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(write_encoder(tmp_path_factory.mktemp("encoder") / "plain"), num_threads=2)


def states(model: Model, text: str) -> np.ndarray:
    """Hidden states of the text's tokens with BOS and EOS, in double."""
    ids = [BOS, *model.tokenizer.encode(text), EOS]
    return model.engine.hidden([ids]).astype(np.float64)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_without_files_it_is_the_last_token_at_unit_length(model: Model) -> None:
    vectors = model.embed(TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (4, 24))
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, unit(states(model, text)[-1]), rtol=1e-6)
    raw = model.embed(TEXTS, normalize=False)
    assert raw[1].tobytes() == states(model, TEXTS[1])[-1].astype(np.float32).tobytes()


def test_a_text_has_the_same_vector_alone_in_any_batch_and_on_any_threads(model: Model) -> None:
    many = TEXTS * 150  # more than one forward call
    vectors = model.embed(many)
    assert vectors[:4].tobytes() == np.concatenate([model.embed([t]) for t in TEXTS]).tobytes()
    assert vectors.tobytes() == np.tile(vectors[:4], (150, 1)).tobytes()
    model.engine.num_threads = 1
    assert model.embed(TEXTS).tobytes() == vectors[:4].tobytes()
    model.engine.num_threads = 2


@pytest.mark.filterwarnings("ignore:.*was not trained")
def test_pooling_can_be_chosen(model: Model) -> None:
    mean = model.embed(TEXTS[:1], pooling="mean", normalize=False)[0]
    np.testing.assert_allclose(mean, states(model, TEXTS[0]).mean(axis=0), rtol=1e-6)
    first = model.embed(TEXTS[:1], pooling="cls", normalize=False)[0]
    np.testing.assert_allclose(first, states(model, TEXTS[0])[0], rtol=1e-6)
    with pytest.raises(ValueError, match="pooling: expected last, mean, cls, got 'max'"):
        model.embed(TEXTS, pooling="max")


def test_control_tokens_in_a_text_are_plain_text(model: Model) -> None:
    name = model.tokenizer.eos_token
    assert name
    ids = model.tokenizer.encode_whole(f"a{name}b")
    assert (ids[0], ids[-1]) == (BOS, EOS)
    assert EOS not in ids[1:-1]


def test_a_decoder_that_was_not_trained_for_it_is_warned_of(model: Model) -> None:
    with Model.load("tales-14m") as tales, pytest.warns(UserWarning, match="tales-14m was not"):
        assert tales.embed(["Once upon a time"]).shape == (1, 384)
    with pytest.warns(UserWarning, match="was not trained for such embeddings"):
        model.embed(TEXTS, pooling="mean")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed(TEXTS)


def test_an_embedding_model_that_is_asked_to_chat_says_what_it_is_for(model: Model) -> None:
    with pytest.raises(TokenizerError, match="this is an embedding model, use embed, or put a"):
        model.chat([{"role": "user", "content": "Hi"}])


def test_no_texts_give_no_vectors_and_one_text_is_no_list(model: Model) -> None:
    assert model.embed([]).shape == (0, 24)
    with pytest.raises(TypeError, match="expected a list of texts, got one text"):
        model.embed("A cat")  # type: ignore[arg-type]


def test_long_texts_are_refused_or_cut_before_eos(model: Model) -> None:
    long = "The dog ran. " * 40
    with pytest.raises(ContextLengthError, match="text 1: expected at most 64 tokens, got"):
        model.embed(["short", long])
    cut = model.embed(["short", long], truncate=True)
    ids = [BOS, *model.tokenizer.encode(long)[:62], EOS]
    np.testing.assert_allclose(cut[1], unit(model.engine.hidden([ids])[-1]), rtol=1e-6)
    assert cut[0].tobytes() == model.embed(["short"])[0].tobytes()


def test_an_empty_text_is_refused_where_nothing_stands_around_it(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    with Model.load(folder) as model:
        assert model.embed([""]).shape == (1, 24)  # BOS and EOS
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    message = "text 1: expected at least one token"
    with Model.load(folder) as model, pytest.raises(PromptError, match=message):
        model.embed(["a", ""])


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with files of sentence-transformers: mean, no prompt in it, not normalized."""
    folder = write_encoder(tmp_path_factory.mktemp("described") / "encoder")
    prompts = {"prompts": {"query": "The ", "document": ""}, "default_prompt_name": "query"}
    return sentence_transformers_files(
        folder,
        {**MEAN, "include_prompt": False},
        kinds=("Transformer", "Pooling"),
        prompts=prompts,
        max_seq_length=20,
    )


def test_files_of_sentence_transformers_are_followed(described: Path) -> None:
    with Model.load(described) as model:
        plain = model.embed(["dog ran"], prompt_name="document")
        np.testing.assert_allclose(plain[0], states(model, "dog ran").mean(axis=0), rtol=1e-6)
        query = model.embed(["dog ran"])
        skipped = 1 + len(model.tokenizer.encode("The "))  # BOS and the prompt
        np.testing.assert_allclose(
            query[0], states(model, "The dog ran")[skipped:].mean(axis=0), rtol=1e-6
        )
        with pytest.raises(ValueError, match=r"prompt_name: expected one of the model's \(doc"):
            model.embed(["dog"], prompt_name="other")
        with pytest.raises(ContextLengthError, match="expected at most 20 tokens"):
            model.embed(["The dog ran. " * 10])


def test_a_packed_folder_keeps_these_files(described: Path, tmp_path: Path) -> None:
    packed = convert(described, tmp_path / "packed")
    convert(described, packed)  # a packed folder may be replaced, with what lies in it
    with Model.load(described) as raw, Model.load(packed) as model:
        assert model.pooling == raw.pooling
        assert model.embed(TEXTS[:3]).tobytes() == raw.embed(TEXTS[:3]).tobytes()
